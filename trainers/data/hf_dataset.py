"""A mixture as the map-style dataset that SFTTrainer takes. Imports datasets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from datasets import Dataset

from trainers.data.mixture import DrawnSample, Mixture


class MixtureDataset(Dataset):  # type: ignore[misc]  # datasets ships no types
    """Row numbers that become samples when they are read; SFTTrainer takes no other map-style class than Dataset.

    ``with_transform`` would do, but it pickles all tasks for a cache fingerprint: seconds, and not possible for mapped
    files.
    """

    mixture: Mixture
    samples: Sequence[int]

    @classmethod
    def from_mixture(cls, mixture: Mixture, samples: Sequence[int]) -> MixtureDataset:
        """Some samples of a mixture by their numbers; training takes them in this order."""
        dataset: MixtureDataset = cls.from_dict({"i": range(len(samples))})
        dataset.mixture, dataset.samples = mixture, samples
        return dataset

    def __getitem__(self, key: int) -> dict[str, DrawnSample]:
        """Row ``key``."""
        return {"draw": self.mixture.draw_sample(self.samples[key])}

    def __getitems__(self, keys: list[int]) -> list[dict[str, DrawnSample]]:
        """The rows of a step."""
        return [self[key] for key in keys]

    def __iter__(self) -> Iterator[dict[str, DrawnSample]]:
        """The rows in order."""
        return (self[key] for key in range(len(self)))
