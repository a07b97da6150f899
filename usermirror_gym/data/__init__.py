"""What happened: raw logs become users, items and interactions with a global time cut."""

from usermirror_gym.data.dataset import RecDataset, Repair
from usermirror_gym.data.sources import SOURCES, load_dataset
from usermirror_gym.data.split import History, Memory, TimeSplit, histories, time_cut

__all__ = [
    "SOURCES",
    "History",
    "Memory",
    "RecDataset",
    "Repair",
    "TimeSplit",
    "histories",
    "load_dataset",
    "time_cut",
]
