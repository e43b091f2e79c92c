"""Commands on params: what a run starts from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedcore.cli.options import Json, print_json
from fedcore.config import plan as plans
from fedcore.errors import ConfigError
from fedcore.terminal import console

params_app = typer.Typer(help="Params to start a run from.", no_args_is_help=True)


@params_app.command("import")
def params_import(
    checkpoint: Annotated[
        Path, typer.Argument(help="safetensors, a state dict by torch.save, or a MONAI bundle.")
    ],
    out: Annotated[Path, typer.Argument(help="The file to write, for training.start.")],
    plan: Annotated[Path, typer.Option(help="The plan whose model takes them.")],
    prefixes: Annotated[
        list[str],
        typer.Option("--map", help="THEIRS=OURS: a prefix of names, and what it becomes."),
    ],
    as_json: Json = False,
) -> None:
    """Convert somebody's checkpoint, and say what to write into the plan.

    What no prefix names, or the model has in no such shape, is left out and listed.
    """
    from fedcore import params as flat
    from fedcore.models import checkpoint as checkpoints
    from fedcore.models.initial import build_model
    from fedcore.store import blobs
    from fedcore.training.state import get_params

    pairs = [tuple(text.split("=", 1)) for text in prefixes]
    if any(len(pair) != 2 for pair in pairs):
        raise ConfigError("--map wants THEIRS=OURS, e.g. --map =encoder.ct.")
    model = get_params(build_model(plans.load(plan)))
    found = checkpoints.read(checkpoint)
    named = checkpoints.renamed(found, [(theirs, ours) for theirs, ours in pairs])
    taken, left_out = checkpoints.fitting(named, model)
    if not taken:
        told = "; ".join(f"{name} {why}" for name, why in list(left_out.items())[:3])
        raise ConfigError(
            f"{checkpoint}: nothing fits the plan's model ({told or 'no prefix matches'}); its "
            f"names begin with {', '.join(sorted({n.split('.')[0] for n in found})[:8])}"
        )
    out.write_bytes(blobs.pack(taken))
    digest = flat.digest(taken)
    for name, why in sorted(left_out.items()):
        console.print(f"left out: {name} {why}", markup=False)
    console.print(
        f"{out}: {len(taken)} params of {len(found)} tensors. In the plan:\n"
        f"training:\n  start:\n    file: {out}\n    digest: {digest}\n    params:\n"
        + "\n".join(f"      - {name}" for name in sorted(taken)),
        markup=False,
        soft_wrap=True,
    )
    print_json(
        {"file": str(out), "digest": digest, "params": sorted(taken), "left_out": left_out},
        as_json=as_json,
    )
