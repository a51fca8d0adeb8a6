"""The base of every settings model: frozen, and it refuses keys it does not know."""

from pydantic import BaseModel, ConfigDict


class Config(BaseModel):
    """Settings of one part. Each part's model lives beside the code it configures."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)
