"""How training data are made: raw logs become scenes, rationales, selected pairs, and a data card.

Where to find what, in the order in which a build (:mod:`~usermirror_gym.corpus.build`) goes:

========================  ========================================================================
settings                  ``config``
tables and scenes         ``scene_stage`` (the scenes themselves: :mod:`usermirror_gym.scenes`)
rationales of a source    ``rationale_stage`` puts together:

                          - ``rationale_prompt`` the question, and how its answer is read
                          - ``rationales`` asks an engine; ``rationale_plan`` what is asked next;
                            ``batch_files`` asks through files; ``watch`` gives up on a dead engine
                          - ``predictions`` the predictor's choice after each rationale
                          - ``journal`` the file that survives ``kill -9`` under all of them
                          - ``estimate`` tokens and time beforehand
selection                 ``uncertainty`` formulas; ``assessment`` hits, misses and the best pair;
                          ``selectors`` scores; ``ifd`` one score that asks a model; ``select``
                          strata and quotas
training files            ``preferences`` rows for TRL
leakage audit             ``audit`` runs ``audit_checks`` (scenes) and ``audit_rankers``
shortcut audit            ``shortcuts``, on ``choice_models``
data card                 ``card`` its parts, from ``card_facts``; ``card_text``, ``card_markdown``,
                          ``card_plots``, ``histogram`` and ``templates/`` its looks
a finished build          ``built`` reads it back
data sets of Wei et al.   ``released`` reads them
========================  ========================================================================
"""
