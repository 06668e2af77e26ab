"""What a method offers: networks, its optimisers, one training step, inference on a batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import accumulate
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple

import torch
from torch import nn

from whence.data.frame import Frame
from whence.models.attributes import Attributes


def stage_at(step: int, stages: Sequence[int]) -> int:
    """Number, from 0, of the stage that a training step belongs to, of ``stages`` and one of all further steps."""
    return sum(step >= end for end in accumulate(stages))


class Prediction(NamedTuple):
    """Result of a batch: image (B, C, *spatial) in [-1, 1], displacement and inverse (B, D, *spatial).

    Fields are in voxels of the batch's lattice; None for a method that has none of its own (an inverse
    alone may be missing: it is then computed). ``novelty`` (B, 1, *spatial) in 0..1 replaces the usual
    measure; ``extras`` are further maps (B, C, *spatial) by name, which the trace carries along, and ``images``
    further images in [-1, 1], which it carries on the source's scale of intensities. Where the method has no field,
    ``comparable`` (B, 1, *spatial), 0 or 1, says where the prediction may be compared with the source. ``carried``:
    the image is the source, carried by the displacement and changed, so that what a scan shows beyond the lattice's
    resolution and range is to be carried with it.
    """

    image: torch.Tensor
    displacement: torch.Tensor | None = None
    inverse: torch.Tensor | None = None
    novelty: torch.Tensor | None = None
    extras: Mapping[str, torch.Tensor] = MappingProxyType({})
    comparable: torch.Tensor | None = None
    images: Mapping[str, torch.Tensor] = MappingProxyType({})
    carried: bool = False


class Retrieval(NamedTuple):
    """How a method finds past cases: by ``strategy`` of the case bank, one of the ``top`` most similar in training."""

    strategy: str
    top: int


class Neighbours(NamedTuple):
    """People beside a sample: ``count`` drawn by a Gaussian of ``width`` about its conditions.

    In a share ``dropped`` of training samples a condition is taken for unknown.
    """

    count: int
    width: float
    dropped: float = 0.0


class Method(nn.Module):
    """Base of every method. It knows tensors on one lattice, nothing of files, grids or millimetres.

    ``config_class`` is a frozen dataclass: at once the method's options on the command line, its YAML
    and what is written beside the weights. Constructor: ``(config, dims, source_channels,
    target_channels)``. Spatial sizes it is given are divisible by ``multiple``.

    ``columns`` are the images of a table that training needs, ``optional`` those it takes where every row
    has them, ``masks`` columns of masks (0 or 1) that it needs as well, ``inputs`` those that ``infer`` needs.
    ``recovered_by`` is the similarity by which prediction and source are registered where the method has no field of
    its own. An ``unpaired`` method also learns from sources and targets
    of different people, images of two domains. One that ``draws`` has another answer for another
    generator; ``sampling`` are the options by which it does, which may be others when it predicts. One that looks at a
    volume's slices ``together`` infers all of them in one batch, in their order. For one that is ``framed`` a place is
    where in the frame of training it lies, to which smaller images are padded. One that is not ``padded`` takes
    images of any size when it predicts. One whose source is an atlas, the same for all, is not ``augmented``: a
    field that follows from no image is not mirrored with one.
    A method that estimates where two images disagree offers
    ``spatial_error(moving, fixed)``, one that gives an image another's appearance ``translate(source,
    reference)``; both take and return images (B, C, *spatial) in [-1, 1] on one lattice and let gradients pass.
    """

    name: ClassVar[str]
    columns: ClassVar[tuple[str, ...]] = ("source", "target")
    optional: ClassVar[tuple[str, ...]] = ("registered",)
    masks: ClassVar[tuple[str, ...]] = ()
    inputs: ClassVar[tuple[str, ...]] = ("source",)
    recovered_by: ClassVar[str] = "ncc"
    unpaired: ClassVar[bool] = False
    draws: ClassVar[bool] = False
    sampling: ClassVar[tuple[str, ...]] = ()
    together: ClassVar[bool] = False
    framed: ClassVar[bool] = False
    padded: ClassVar[bool] = True
    augmented: ClassVar[bool] = True
    config_class: ClassVar[type]
    config: Any
    multiple: int = 1
    attributes: Attributes | None = None
    # Called with the steps done and their number by an ``infer`` that takes many.
    on_step: Callable[[int, int], None] | None = None

    @classmethod
    def sees_labels(cls, config: Any) -> bool:
        """Whether with this config it learns from its images' labels, columns ``..._labels``, and predicts with them.

        A batch then holds labels (B, 1, *spatial), whole numbers as float32, beside each image of ``columns``.
        """
        return False

    @classmethod
    def retrieval(cls, config: Any) -> Retrieval | None:
        """How with this config it finds past cases in a bank of its training rows; None where it looks at none.

        A batch then holds, of a case for each sample, its images and masks of training as ``case_<column>``.
        """
        return None

    @classmethod
    def conditions(cls, config: Any) -> tuple[str, ...]:
        """Columns of a table that it is told of an image with this config, as ``age``.

        The constructor then gets ``attributes``, what the training rows' were, and keeps them; a batch holds
        ``conditions`` (B, K), their vectors, NaN where unknown.
        """
        return ()

    @classmethod
    def neighbourhood(cls, config: Any) -> Neighbours | None:
        """Which people's images it learns from beside a sample's; None where it looks at none.

        A batch then holds ``near_target`` (B, N * C, *spatial), targets of N people of conditions near the sample's,
        and ``near_index`` (B, N), their places among all people.
        """
        return None

    @classmethod
    def stages(cls, config: Any) -> tuple[int, ...]:
        """Training steps of each stage but the last, which has the rest; learning rates begin anew with each."""
        return ()

    def networks(self) -> dict[str, Any]:
        """Plain values that say what its networks are where ``config`` does not, for they came from elsewhere.

        A run keeps them, and loading it gives them to the constructor as ``networks``.
        """
        return {}

    def bind(self, load: Callable[[str], Any], frame: Frame | None = None) -> None:
        """Prepare for training, in a frame, what other runs contribute; ``load`` gives a run folder's Predictor."""

    def derive(self, sample: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Further tensors (1, K, *spatial) of a sample's images (1, C, *spatial), made once and kept for training.

        Named ``<image>_<what>``, with values that stay true when the images are flipped along their first axis.
        """
        return {}

    def optimizers(self) -> list[torch.optim.Optimizer]:
        """Fresh optimisers, in the order in which ``training_step`` gets them."""
        raise NotImplementedError

    def training_step(
        self,
        batch: dict[str, torch.Tensor],
        optimizers: Sequence[torch.optim.Optimizer],
        backward: Callable[[torch.Tensor], None],
        generator: torch.Generator,
        step: int = 0,
    ) -> dict[str, torch.Tensor]:
        """Update number ``step`` of every optimiser; returns named scalars, ``loss`` among them.

        ``batch`` holds the images of ``columns`` (B, C, *spatial) in [-1, 1], and those of ``optional`` that
        the table has. All randomness comes from ``generator``.
        """
        raise NotImplementedError

    def validation_step(self, batch: dict[str, torch.Tensor], generator: torch.Generator) -> dict[str, torch.Tensor]:
        """Named scalars of a held-out batch, lower is better."""
        raise NotImplementedError

    def infer(self, batch: dict[str, torch.Tensor], generator: torch.Generator) -> Prediction:
        """Prediction of a batch that holds the images of ``inputs`` (B, C, *spatial) in [-1, 1]."""
        raise NotImplementedError


@contextmanager
def frozen(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Without gradients of these modules' weights, so that a generator's step does not pay for them."""
    modules = list(modules)
    for module in modules:
        module.requires_grad_(False)
    try:
        yield
    finally:
        for module in modules:
            module.requires_grad_(True)
