"""`imatlas fit MODEL`: one command for each model of the table, its options the fields of the model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from imatlas.cli.shared import (
    Fit,
    Frames,
    ImageSize,
    Overwrite,
    Sources,
    app,
    command_line,
    open_images,
    say_next,
)
from imatlas.system.terminal import say

fit_app = typer.Typer(no_args_is_help=True, help="Learn one model from images and save it.")
app.add_typer(fit_app, name="fit")


def _add_fit_command(name: str) -> None:
    """Give `imatlas fit NAME` an option for each parameter of the model, as the model declares it."""
    import inspect

    from imatlas.models import model_class
    from imatlas.models.base import parameters

    cls = model_class(name)
    options = {key: p for key, p in parameters(cls).items() if _as_option(p.type) is not None}

    def command(**values: Any) -> None:
        from imatlas.tasks.fit import fit_and_save

        source, output, overwrite = values.pop("images"), values.pop("output"), values.pop("overwrite")
        size, fit = values.pop("source_size"), values.pop("source_fit")
        frames = values.pop("source_frames")
        preview = values.pop("preview", False)
        chosen = {key: value for key, value in values.items() if value != options[key].default}
        pictures = open_images(source, image_size=size, fit=fit, frames=frames, progress=True)
        if preview:
            _write_preview(cls(**chosen), pictures, output, overwrite)
            return
        fit_and_save(cls(**chosen), pictures, output, overwrite=overwrite)
        say(f"Model: {output}")
        code = f"import imatlas; model = imatlas.load({json.dumps(str(output))})"
        say_next(False, command_line("python", "-c", code))

    keyword = inspect.Parameter.KEYWORD_ONLY
    arguments = [
        inspect.Parameter("images", keyword, annotation=Sources),
        inspect.Parameter(
            "output", keyword, annotation=Annotated[Path, typer.Option("-o", "--output", help="folder of the model")]
        ),
        inspect.Parameter("overwrite", keyword, annotation=Overwrite, default=False),
        inspect.Parameter("source_size", keyword, annotation=ImageSize, default=None),
        inspect.Parameter("source_fit", keyword, annotation=Fit, default="crop"),
        inspect.Parameter("source_frames", keyword, annotation=Frames, default="first"),
    ]
    if hasattr(cls, "preview"):
        option = typer.Option("--preview", help="write what it would learn from to -o, a .png, and stop")
        arguments.append(inspect.Parameter("preview", keyword, annotation=Annotated[bool, option], default=False))
    for key, parameter in options.items():
        option = typer.Option(f"--{key.replace('_', '-')}", help=parameter.description)
        kind = _as_option(parameter.type)
        if kind is bool:
            option = typer.Option(help=parameter.description)
        arguments.append(inspect.Parameter(key, keyword, annotation=Annotated[kind, option], default=parameter.default))
    command.__signature__ = inspect.Signature(arguments)  # type: ignore[attr-defined]
    command.__annotations__ = {a.name: a.annotation for a in arguments}
    command.__doc__ = (cls.__doc__ or "").strip().partition("\n\n")[0]
    fit_app.command(name, epilog=f"Example: imatlas fit {name} photos/ -o runs/{name}")(command)


def _write_preview(model: Any, images: Any, path: Path, overwrite: bool) -> None:
    """A row for each of a few images: the image, and the views of it that the model would learn from."""
    from imatlas.cli.shared import refuse_existing
    from imatlas.images.pixels import display_view
    from imatlas.tasks.sample import write_samples

    refuse_existing(path, overwrite)
    shown, why = model.preview(images)
    pictures = display_view(shown.reshape(-1, *shown.shape[2:]), images.spec)
    write_samples(pictures, path, recipe={"views": why}, columns=shown.shape[1], overwrite=overwrite)
    say(f"Views: {path} (each row an image, and how it is seen)")
    say(f"{why[:1].upper()}{why[1:]}.")


def _as_option(kind: Any) -> Any:
    """The type that Typer can parse for a parameter's type; None where a command line cannot give it."""
    from typing import get_args, get_origin

    def simple(k: Any) -> bool:
        return k in (bool, int, float, str) or get_origin(k) is Literal

    if simple(kind):
        return kind
    members = [k for k in get_args(kind) if k is not type(None)]
    if not members or not all(simple(k) for k in members):
        return None
    member = str if str in members else members[0]  # budget is "90s" or 90: the model reads both from text
    return member | None if type(None) in get_args(kind) else member


def add_models(arguments: list[str]) -> None:
    """Add the models to `fit`: the one that is named with all its options, the others by name and first sentence.

    Models that require labels are refused, as a folder of images has none.
    """
    from imatlas.models import MODELS

    if "fit" not in arguments[:1]:
        return
    for name, target in MODELS.items():
        declared = _declared(target)
        if "labels = 'required'" in declared:
            if name in arguments[1:2]:
                raise typer.BadParameter(
                    f"'{name}' requires labels, which a folder of images does not have; label a few images of an atlas "
                    "and run: imatlas classify ATLAS --labels labels.csv"
                )
            continue
        if name in arguments:
            _add_fit_command(name)
            continue
        fit_app.command(name, help=declared[0])(lambda: None)


def _declared(target: str) -> list[str]:
    """The first sentence of a model's docstring, and the assignments of its class body: read, as imports take long."""
    import ast

    module, _, cls = target.partition(":")
    tree = ast.parse((Path(__file__).parents[1] / "models" / f"{module}.py").read_text(encoding="utf-8"))
    found = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == cls)
    text = (ast.get_docstring(found) or "").partition("\n\n")[0]
    return [text, *(ast.unparse(node) for node in found.body if isinstance(node, ast.Assign))]
