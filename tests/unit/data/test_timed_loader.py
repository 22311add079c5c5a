"""A loader counts the waiting time of its consumer, and returns the same batches."""

import time

from torch.utils.data import Dataset

from nbg_lightning.data.timed_loader import TimedLoader


class Slow(Dataset):
    """A hundredth of a second for each item."""

    def __len__(self):
        return 3

    def __getitem__(self, index):
        if index >= 3:
            raise IndexError(index)
        time.sleep(0.01)
        return index


def test_seconds_of_waiting_add_up():
    loader = TimedLoader(Slow(), batch_size=None)
    begin = time.perf_counter()
    assert list(loader) == [0, 1, 2]
    assert 0.03 <= loader.seconds_waited <= time.perf_counter() - begin
    before = loader.seconds_waited
    assert next(iter(loader)) == 0
    assert loader.seconds_waited >= before + 0.01
