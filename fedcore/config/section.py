"""What every section of a plan is made of."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

Name = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$")]
"""Lower case, digits and dashes, at most 40: it becomes part of object keys and of Job names."""

Importable = Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")]
"""``package.module:function``."""

Size = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """A part of a file: unknown fields are errors, values are frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Function(Section):
    """An importable function and the keyword arguments it is called with."""

    function: Importable
    arguments: dict[str, Any] = Field(default_factory=dict)
