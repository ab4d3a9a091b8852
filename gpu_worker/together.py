"""Makes the pictures of several jobs in shared batches, while each job keeps a fate of its own."""

import logging
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

from PIL import Image

from gpu_worker.denoising import Step
from gpu_worker.errors import Dropped, JobFault, MachineFault
from gpu_worker.jobs import ModelFile
from gpu_worker.loading import Vae
from gpu_worker.making import Making
from gpu_worker.pipelines import LoadedCheckpoint, LoadedVae
from gpu_worker.plan import ImageRequest, Plan
from gpu_worker.previews import draw
from gpu_worker.tasks import TaskContext, TaskResult

log = logging.getLogger(__name__)

# Finished pictures of a job become its result.
Describe = Callable[[LoadedCheckpoint, LoadedVae | None, Sequence[Image.Image]], TaskResult]
Outcome = TaskResult | Exception


@dataclass(frozen=True, slots=True, eq=False)
class PictureJob:
    """A job of which everything that can be refused without its models has been checked.

    `batches` are the pictures that its request wants made together, one batch after the other.
    """

    context: TaskContext
    checkpoint: ModelFile
    vae: ModelFile | None
    plan: Plan
    making: Making
    batches: Sequence[Sequence[ImageRequest]]
    describe: Describe

    @property
    def key(self) -> Hashable:
        """Jobs with equal keys may share a batch."""
        if self.making.key is None:
            return id(self)
        return self.checkpoint.version, self.vae and self.vae.version, self.plan, self.making.key

    @property
    def files(self) -> list[ModelFile]:
        """The files of the models that are used on the way, side by side."""
        return [file for file in (self.checkpoint, self.vae, *self.making.files) if file is not None]

    @property
    def count(self) -> int:
        """How many pictures the job makes."""
        return sum(len(batch) for batch in self.batches)


def make_together(jobs: Iterable[PictureJob], most_pixels: int) -> Iterator[tuple[PictureJob, Outcome]]:
    """Gives every job with its result, or with the exception that ended it, as soon as it is known.

    Batches have up to `most_pixels`, or one picture. What ends one job ends no other: a job that is dropped
    leaves, and where a shared batch fails, its jobs are computed alone. Raises `MachineFault`: what has not
    been given by then has not ended.
    """
    groups: dict[Hashable, list[PictureJob]] = {}
    for job in jobs:
        groups.setdefault(job.key, []).append(job)
    for alike in groups.values():
        yield from _Group(alike, most_pixels).run()


@dataclass(slots=True, eq=False)
class _Part:
    """The pictures of one job in a batch; `ended` says why they are not wanted any more."""

    job: PictureJob
    requests: Sequence[ImageRequest]
    finished: int
    ended: Exception | None = None


@dataclass(slots=True)
class _Group:
    """Jobs with equal keys: one checkpoint, one VAE, one plan."""

    jobs: Sequence[PictureJob]
    most_pixels: int
    images: dict[PictureJob, list[Image.Image]] = field(default_factory=dict)
    ends: list[tuple[PictureJob, Outcome]] = field(default_factory=list)

    def run(self) -> Iterator[tuple[PictureJob, Outcome]]:
        """As `make_together`."""
        with self.jobs[0].context.memory.holding(self.jobs[0].files):
            yield from self._run()

    def _run(self) -> Iterator[tuple[PictureJob, Outcome]]:
        self.images = {job: [] for job in self.jobs}
        models = self._load()
        yield from self._ended()
        if models is None:
            return
        checkpoint, vae = models
        for job in list(self.images):
            self._try(job, partial(job.context.progress.start, job.count, job.making.steps))
        for turn in range(max(len(job.batches) for job in self.jobs)):
            for parts in self._batches(turn):
                self._make(checkpoint, vae, parts)
                for job in [job for job, made in self.images.items() if len(made) == job.count]:
                    self._end(job, _described(job, checkpoint, vae, self.images[job]))
                yield from self._ended()
        yield from self._ended()

    def _load(self) -> tuple[LoadedCheckpoint, LoadedVae | None] | None:
        """The group's models; a job that is dropped meanwhile leaves the loading to the next one."""
        for job in self.jobs:
            memory, open_file = job.context.memory, job.context.open_file
            try:
                checkpoint = memory.checkpoint(job.checkpoint, open_file)
                vae = memory.vae(job.vae, checkpoint.family, open_file) if job.vae else None
                for use in (*job.plan.networks, *job.making.networks):
                    use.load()
                return checkpoint, vae
            except MachineFault:
                raise
            except Exception as reason:
                # Each job has addresses of its own for the files, so the next one tries again.
                self._end(job, reason)
        return None

    def _batches(self, turn: int) -> Iterator[list[_Part]]:
        """The pictures of every job's batch number `turn`, put together up to the limit."""
        room = 0
        parts: list[_Part] = []
        for job in list(self.images):
            if turn >= len(job.batches):
                continue
            width, height = job.making.size or (job.plan.width, job.plan.height)
            most = max(1, self.most_pixels // (width * height))
            rest = list(job.batches[turn])
            finished = sum(len(batch) for batch in job.batches[:turn])
            while rest:
                if parts and room == 0:
                    yield self._wanted(parts)
                    parts = []
                room = room or most
                part = _Part(job, rest[:room], finished)
                parts.append(part)
                rest = rest[len(part.requests) :]
                finished += len(part.requests)
                room -= len(part.requests)
        if parts:
            yield self._wanted(parts)

    def _wanted(self, parts: Sequence[_Part]) -> list[_Part]:
        """The parts whose jobs have not ended since, each asked whether it is still wanted."""
        for job in [part.job for part in parts if part.job in self.images]:
            self._try(job, job.context.progress.check)
        return [part for part in parts if part.job in self.images]

    def _make(self, checkpoint: LoadedCheckpoint, vae: LoadedVae | None, parts: Sequence[_Part]) -> None:
        if not parts:
            return
        first = parts[0].job
        model = vae.model if vae else checkpoint.pipeline.vae
        requests = [request for part in parts for request in part.requests]
        try:
            made = first.making.make(checkpoint, model, requests, first.plan, partial(_report, parts, model))
        except MachineFault:
            raise
        except Exception as error:
            self._failed(checkpoint, vae, parts, error)
            return
        for part in parts:
            if part.ended is None:
                self.images[part.job] += made[: len(part.requests)]
            else:
                self._end(part.job, part.ended)
            made = made[len(part.requests) :]

    def _failed(
        self,
        checkpoint: LoadedCheckpoint,
        vae: LoadedVae | None,
        parts: Sequence[_Part],
        error: Exception,
    ) -> None:
        """Whose fault a shared batch's failure is shows when each part is made alone."""
        if len(parts) == 1:
            self._end(parts[0].job, parts[0].ended or error)
            return
        if any(part.ended is None for part in parts):
            log.warning("a shared batch failed", extra={"jobs": len(parts), "reason": type(error).__name__})
        for part in parts:
            if part.ended is not None:
                self._end(part.job, part.ended)
            else:
                self._make(checkpoint, vae, [part])

    def _try(self, job: PictureJob, call: Callable[[], None]) -> None:
        try:
            call()
        except (Dropped, JobFault) as reason:
            self._end(job, reason)

    def _end(self, job: PictureJob, outcome: Outcome) -> None:
        if self.images.pop(job, None) is not None:
            self.ends.append((job, outcome))

    def _ended(self) -> Iterator[tuple[PictureJob, Outcome]]:
        while self.ends:
            yield self.ends.pop(0)


def _described(
    job: PictureJob, checkpoint: LoadedCheckpoint, vae: LoadedVae | None, images: Sequence[Image.Image]
) -> Outcome:
    try:
        return job.describe(checkpoint, vae, images)
    except Exception as error:
        return error


def _report(parts: Sequence[_Part], vae: Vae, step: Step) -> None:
    """Tells every job of a step; raises the reason of the last one when none is wanted any more."""
    place, whole = 0, sum(len(part.requests) for part in parts)
    for part in parts:
        if part.ended is None:
            _preview(part, vae, step, place, whole)
            try:
                part.job.context.progress.step(step.done, finished=part.finished, batch=len(part.requests))
            except (Dropped, JobFault) as reason:
                part.ended = reason
        place += len(part.requests)
    ended = [part.ended for part in parts if part.ended is not None]
    if len(ended) == len(parts):
        raise ended[-1]


def _preview(part: _Part, vae: Vae, step: Step, place: int, whole: int) -> None:
    """Shows a job's first picture of the batch, at `place` of it; never what a filter has not passed."""
    previews = part.job.context.previews
    if previews is None or part.job.context.safety is not None or not previews.preview_due():
        return
    latents = step.predicted()
    # The halves of a batch that did not fit do not say whose pictures they are.
    if len(latents) == whole:
        previews.show(draw(vae, latents[place]), step.done, part.finished)
