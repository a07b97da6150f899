"""One RecBole model of each family keeps the agent contract."""

from __future__ import annotations

from usermirror_gym.agents import RecBoleAgent
from usermirror_gym.testing.agents import AgentContract


class RecBoleContract(AgentContract):
    __test__ = False
    model: str

    def make_agent(self):
        config = {"epochs": 1, "MAX_ITEM_LIST_LENGTH": 8}
        return RecBoleAgent(self.model, config=config, seed=1, progress=False)


class TestSimilarity(RecBoleContract):
    __test__ = True
    model = "EASE"


class TestAutoencoder(RecBoleContract):
    __test__ = True
    model = "MultiVAE"


class TestFactors(RecBoleContract):
    __test__ = True
    model = "BPR"


class TestGraph(RecBoleContract):
    __test__ = True
    model = "LightGCN"


class TestSequential(RecBoleContract):
    __test__ = True
    model = "GRU4Rec"


class TestPredictOnly(RecBoleContract):
    __test__ = True
    model = "NeuMF"


class TestContext(RecBoleContract):
    __test__ = True
    model = "FM"


class TestKnowledge(RecBoleContract):
    __test__ = True
    model = "CKE"
