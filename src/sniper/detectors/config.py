"""The settings of any detector, told apart by ``kind``; without torch."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from sniper.detectors.from_torchvision.config import TorchvisionConfig
from sniper.detectors.from_transformers.config import TransformersConfig
from sniper.detectors.original.config import OriginalConfig
from sniper.detectors.rfcn3k.config import Rfcn3kConfig
from sniper.detectors.sniper.config import SniperConfig
from sniper.detectors.ssh.config import SshConfig
from sniper.settings import Config


class CustomConfig(Config):
    """A user's own detector: what was read off it when it was trained. It is passed as ``detector=``, never built."""

    kind: Literal["custom"] = Field(default="custom", description="a detector of your own")
    name: str = Field(description="class of the detector")
    stride: int | None = Field(default=None, ge=1, description="network px per cell of its feature map; null: unknown")
    comfortable_px: float = Field(
        default=64.0, gt=0, description="object size that it sees best, sqrt(area) in network px"
    )
    masks: bool = Field(default=False, description="with a mask branch")
    focus: bool = Field(default=False, description="with a focus branch")

    @property
    def network(self) -> str:
        """Name of the network that is trained."""
        return self.name


def _kind_of(settings: Any) -> Any:
    """``kind`` may be left out: then it is the reference detector."""
    default = SniperConfig.model_fields["kind"].default
    return settings.get("kind", default) if isinstance(settings, Mapping) else getattr(settings, "kind", default)


ModelConfig = Annotated[
    Annotated[SniperConfig, Tag("sniper")]
    | Annotated[OriginalConfig, Tag("original")]
    | Annotated[Rfcn3kConfig, Tag("rfcn3k")]
    | Annotated[SshConfig, Tag("ssh")]
    | Annotated[TorchvisionConfig, Tag("torchvision")]
    | Annotated[TransformersConfig, Tag("transformers")]
    | Annotated[CustomConfig, Tag("custom")],
    Discriminator(_kind_of),
]
