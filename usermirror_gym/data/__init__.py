"""What happened: raw logs become users, items and interactions with a global time cut."""

from usermirror_gym.data.dataset import RecDataset, Repair
from usermirror_gym.data.sources import SOURCES, Source, get_source, load_dataset
from usermirror_gym.data.split import History, Memory, TimeSplit, cut_at, time_cut
from usermirror_gym.data.store import read_dataset, save_dataset

__all__ = [
    "SOURCES",
    "History",
    "Memory",
    "RecDataset",
    "Repair",
    "Source",
    "TimeSplit",
    "cut_at",
    "get_source",
    "load_dataset",
    "read_dataset",
    "save_dataset",
    "time_cut",
]
