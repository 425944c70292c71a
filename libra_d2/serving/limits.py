"""What a server accepts of its clients."""

from dataclasses import dataclass, fields

from ..errors import UserError
from ..utils.arguments import flag


@dataclass(frozen=True)
class Limits:
    """
    Limits of a server. Each has an option of `libra-d2 serve` with its name.

    Raises:
        UserError: a limit is not above 0.
    """

    max_bytes: int = 20 << 20  # of the body of a request
    max_total_bytes: int = 256 << 20  # of the bodies of all requests that are not answered yet
    max_pixels: int = 50_000_000  # of an image
    max_images: int = 16  # of a request
    max_slices: int = 100  # of an image
    max_queue: int = 128  # images that wait for the detector
    upload_timeout: float = 30.0  # seconds in which a request must have arrived
    timeout: float = 60.0  # seconds in which it must have been answered after that

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not value > 0:
                raise UserError(f"{flag(field.name)} must be above 0, got {value}")

    @property
    def max_requests(self) -> int:
        """Number of requests that are on their way, or not answered yet."""
        return 2 * self.max_queue
