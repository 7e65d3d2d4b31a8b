"""Present a mixture as the map-style dataset that SFTTrainer takes. Imports datasets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from datasets import Dataset

from trainers.data.mixture import DrawnSample, Mixture


class MixtureDataset(Dataset):  # type: ignore[misc]  # datasets ships no types
    """Row numbers whose samples are drawn when a row is read.

    SFTTrainer accepts no map-style class but ``datasets.Dataset``. ``with_transform`` would pickle all tasks for a
    cache fingerprint, which takes seconds and fails for memory-mapped files.
    """

    mixture: Mixture
    samples: Sequence[int]

    @classmethod
    def from_mixture(cls, mixture: Mixture, samples: Sequence[int]) -> MixtureDataset:
        """Build a dataset of the mixture's samples with these indices, in this order."""
        dataset: MixtureDataset = cls.from_dict({"i": range(len(samples))})
        dataset.mixture, dataset.samples = mixture, samples
        return dataset

    def __getitem__(self, key: int) -> dict[str, DrawnSample]:
        """Return row ``key`` as ``{"draw": sample}``."""
        return {"draw": self.mixture.draw_sample(self.samples[key])}

    def __getitems__(self, keys: list[int]) -> list[dict[str, DrawnSample]]:
        """Return the rows of a batch."""
        return [self[key] for key in keys]

    def __iter__(self) -> Iterator[dict[str, DrawnSample]]:
        """Iterate over the rows in order."""
        return (self[key] for key in range(len(self)))
