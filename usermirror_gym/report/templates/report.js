"use strict";
// All text from data goes into the page as text nodes, never as markup.
(function () {
  const data = JSON.parse(document.getElementById("episodes").textContent);
  const $ = (id) => document.getElementById(id);

  function el(tag, attributes, ...children) {
    const node = document.createElement(tag);
    for (const [key, value] of Object.entries(attributes || {})) {
      if (value !== null && value !== undefined) node.setAttribute(key, value);
    }
    node.append(...children.filter((c) => c !== null && c !== undefined));
    return node;
  }

  function sortable(table) {
    const headers = [...table.tHead.rows[0].cells];
    headers.forEach((header, column) => {
      header.querySelector("button").addEventListener("click", () => {
        const down = column === 0
          ? header.getAttribute("aria-sort") === "ascending"
          : header.getAttribute("aria-sort") !== "descending";
        headers.forEach((h) => h.setAttribute("aria-sort", "none"));
        header.setAttribute("aria-sort", down ? "descending" : "ascending");
        const value = (row) => row.cells[column].dataset.v;
        const rows = [...table.tBodies[0].rows];
        rows.sort((a, b) => {
          const [x, y] = [value(a), value(b)];
          if (x === "" || y === "") return (x === "") - (y === "");
          return (down ? -1 : 1) * (column === 0 ? x.localeCompare(y) : Number(x) - Number(y));
        });
        table.tBodies[0].append(...rows);
      });
    });
  }
  sortable($("main-table"));

  const roomy = window.matchMedia("(min-width: 1000px)").matches;
  const state = { agent: data.agents[0], other: "", episode: 0, step: 0 };
  if (roomy && data.baseline !== state.agent) state.other = data.baseline;
  const number = (x) => String(Math.round(x * 1000) / 1000);
  const percent = (p) => (100 * p).toFixed(1) + "%";
  const session = (agent) => (data.log[agent] || {})[String(data.episodes[state.episode].id)] || [];
  const shown = () => [state.agent, state.other].filter((a) => a !== "");
  const length = () => Math.max(1, ...shown().map((a) => session(a).length));

  function itemText(id) {
    const [title, detail] = data.items[id] || ["item " + id, ""];
    return [el("bdi", {}, title), " ", el("small", {}, el("bdi", {}, detail))];
  }

  function showUser() {
    const id = data.episodes[state.episode].user;
    const user = data.users[id];
    const row = (left, right) => el("li", {}, el("span", {}, ...left), el("span", {}, right));
    const profile = user.profile.map(([key, value]) => row([key], el("bdi", {}, value)));
    const history = user.history.map(([item, rating]) =>
      row(itemText(item), rating === null ? "" : "rated " + number(rating)));
    const last = user.seen > history.length ? "Last " + history.length + " of " : "";
    const seen = last + user.seen + (user.seen === 1 ? " interaction." : " interactions, oldest first.");
    $("user").replaceChildren(
      el("h3", {}, "User " + id),
      el("ul", {}, ...profile),
      el("h3", {}, "Before the session"),
      el("p", { class: "note" }, user.seen ? seen : "No history."),
      el("ul", {}, ...history));
  }

  function option(position, content, p, chosen, none) {
    const title = el("span", { class: "title" }, ...content);
    if (chosen) title.append(el("span", { class: "tag" }, "✓ chosen"));
    const fill = el("i");
    fill.style.width = percent(p);
    return el("li", { class: (none ? "none " : "") + (chosen ? "chosen" : "") },
      el("span", { class: "pos" }, position), title, el("span", { class: "p" }, percent(p)),
      el("span", { class: "meter", "aria-hidden": "true" }, fill));
  }

  function fact(label, value) {
    return el("div", {}, el("dt", {}, label), el("dd", {}, value));
  }

  function strip(steps, now) {
    return el("div", { class: "strip", role: "group", "aria-label": "Steps; filled are clicks" },
      ...steps.map((s, i) => {
        const hit = s.choice < s.slate.length;
        const button = el("button", {
          type: "button", class: hit ? "hit" : null, "aria-current": i === now ? "step" : null,
          "aria-label": "Step " + (i + 1) + (hit ? ", click" : ", no choice"),
        }, String(i + 1));
        button.addEventListener("click", () => go(i));
        return button;
      }));
  }

  function lane(agent) {
    const steps = session(agent);
    const box = el("section", { class: "lane", "aria-label": agent }, el("h3", {}, agent));
    if (!steps.length) {
      box.append(el("p", { class: "ended" }, "This agent has no such episode."));
      return box;
    }
    const now = Math.min(state.step, steps.length - 1);
    const s = steps[now];
    const none = s.slate.length;
    const total = steps.slice(0, now + 1).reduce((sum, x) => sum + x.reward, 0);
    const options = s.slate.map((id, i) =>
      option(String(i + 1), itemText(id), s.p[i], s.choice === i, false));
    options.push(option("–", ["None of these"], s.p[none], s.choice === none, true));
    box.append(strip(steps, now), el("ol", { class: "slate" }, ...options),
      el("dl", { class: "outcome" },
        fact("Rating", s.rating === null ? "–" : number(s.rating)),
        fact("Reward", number(s.reward)),
        fact("Return so far", number(total)),
        fact("Step", now + 1 + " of " + steps.length)));
    if (s.why) box.append(el("blockquote", { class: "why", dir: "auto" }, s.why));
    if (now === steps.length - 1) {
      const why = { left: "The user leaves after this step.", horizon: "The horizon is reached." }[s.end];
      if (why) box.append(el("p", { class: "ended" }, why));
    }
    if (state.step > now) {
      box.append(el("p", { class: "ended" }, "Over since step " + steps.length + "; its last step is shown."));
    }
    return box;
  }

  function show() {
    const n = length();
    state.step = Math.max(0, Math.min(state.step, n - 1));
    $("step").max = n;
    $("step").value = state.step + 1;
    $("prev").disabled = state.step === 0;
    $("next").disabled = state.step === n - 1;
    $("where").textContent = "step " + (state.step + 1) + " of " + n;
    $("lanes").replaceChildren(...shown().map(lane));
  }

  function go(step) {
    const focused = document.activeElement;
    const laneIndex = [...$("lanes").children].findIndex((l) => l.contains(focused));
    state.step = step;
    show();
    if (laneIndex >= 0) {
      const again = $("lanes").children[laneIndex].querySelector("[aria-current]");
      if (again) again.focus();
    }
  }

  data.agents.forEach((a) => {
    $("agent").append(el("option", { value: a }, a));
    $("other").append(el("option", { value: a }, a));
  });
  $("other").prepend(el("option", { value: "" }, "no other agent"));
  $("agent").value = state.agent;
  $("other").value = state.other;
  data.episodes.forEach((e, i) => $("episode").append(
    el("option", { value: i }, e.id + " (user " + e.user + ")")));

  $("agent").addEventListener("change", (e) => { state.agent = e.target.value; show(); });
  $("other").addEventListener("change", (e) => { state.other = e.target.value; show(); });
  $("episode").addEventListener("change", (e) => {
    state.episode = Number(e.target.value);
    state.step = 0;
    showUser();
    show();
  });
  $("step").addEventListener("input", (e) => go(Number(e.target.value) - 1));
  $("prev").addEventListener("click", () => go(state.step - 1));
  $("next").addEventListener("click", () => go(state.step + 1));
  document.addEventListener("keydown", (e) => {
    const target = e.target;
    const free = target === document.body || $("viewer").contains(target);
    const typing = ["SELECT", "INPUT"].includes(target.tagName);
    if (!free || typing || e.altKey || e.ctrlKey || e.metaKey || e.shiftKey) return;
    const step = { ArrowLeft: -1, ArrowRight: 1 }[e.key];
    if (step) { e.preventDefault(); go(state.step + step); }
  });
  showUser();
  show();
})();
