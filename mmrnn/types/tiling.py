"""Contract of tilings: the views of one image that an encoder reads, and their tokens as those of one image."""

from abc import abstractmethod
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from mmrnn.types.layout import ImageSpec, Layout


@runtime_checkable
class Tiling(Protocol):
    """Policy by which an image is cut into views of the size that an encoder was built for.

    `size` is the height and width of an image as the data side delivers it. The encoder emits a patch grid alone.
    """

    @abstractmethod
    def image_spec(self, side: int) -> ImageSpec:
        """Return what the data side delivers, with values from 0 to 1.

        Args:
            side: height and width of a view in pixels.
        """

    @abstractmethod
    def width(self, width: int) -> int:
        """Return the width of a token, given that of a token of the encoder."""

    @abstractmethod
    def layout(self, size: tuple[int, int], side: int, view: Layout) -> Layout:
        """Return the layout of the tokens of an image.

        Args:
            size: of the image.
            side: of a view.
            view: layout of a view.

        Raises:
            ValueError: an image of that size cannot be cut.
        """

    @abstractmethod
    def views(self, images: Float[Tensor, "m c H W"], side: int) -> Float[Tensor, "m v c h w"]:
        """Cut images of one size into views."""

    @abstractmethod
    def join(
        self, tokens: Float[Tensor, "m v n e"], size: tuple[int, int], side: int, view: Layout
    ) -> Float[Tensor, "m t d"]:
        """Join the tokens of the views."""
