"""What an experiment tracker knows a training, run or comparison by."""

from __future__ import annotations

from harness.runs.schemas.prediction_schema import Record, omitted_if_none


class TrackerRun(Record):
    """A run in Weights & Biases, MLflow, trackio or TensorBoard; what a tracker does not have is left out."""

    id: str
    """The tracker's id of the run; for TensorBoard the folder of its event files."""
    name: str | None = omitted_if_none()
    project: str | None = omitted_if_none()
    """Its project, or MLflow's experiment."""
    url: str | None = omitted_if_none()
    """Address of its page; None without a server."""

    def as_link(self) -> str:
        """Return the address of the run's page, else its project and id; the record may come from a foreign adapter."""
        if self.url is not None and self.url.startswith(("https://", "http://")):
            return self.url
        return "/".join(part for part in (self.project, self.id) if part)
