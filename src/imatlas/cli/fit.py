"""`imatlas fit MODEL`: one command per model of the table; its options are the parameters of the model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from imatlas.cli.shared import (
    Field,
    Fit,
    Frames,
    ImageSize,
    Overwrite,
    Sources,
    Video,
    app,
    command_line,
    open_images,
    print_next,
)
from imatlas.system.terminal import say

fit_app = typer.Typer(
    no_args_is_help=True,
    help="Fit one model to images and save it.",
    epilog="Example: imatlas fit vae photos/ -o runs/vae",
)
app.add_typer(fit_app, name="fit")


def _add_fit_command(name: str) -> None:
    """Add `imatlas fit NAME` with an option for each declared parameter of the model."""
    import inspect

    from imatlas.models import model_class
    from imatlas.models.base import parameters

    cls = model_class(name)
    options = {key: p for key, p in parameters(cls).items() if _as_option(p.type) is not None}

    def command(**values: Any) -> None:
        from imatlas.tasks.fit import fit_and_save

        source, output, overwrite = values.pop("images"), values.pop("output"), values.pop("overwrite")
        size, fit = values.pop("source_size"), values.pop("source_fit")
        frames, video, field = (values.pop(f"source_{name}") for name in ("frames", "video", "field"))
        preview = values.pop("preview", False)
        chosen = {key: value for key, value in values.items() if value != options[key].default}
        pictures = open_images(source, image_size=size, fit=fit, frames=frames, video=video, field=field, progress=True)
        if preview:
            _write_preview(cls(**chosen), pictures, output, overwrite)
            return
        fit_and_save(cls(**chosen), pictures, output, overwrite=overwrite)
        say(f"Model: {output}")
        code = f"import imatlas; model = imatlas.load({json.dumps(str(output))})"
        print_next(False, command_line("python", "-c", code))

    keyword = inspect.Parameter.KEYWORD_ONLY
    arguments = [
        inspect.Parameter("images", keyword, annotation=Sources),
        inspect.Parameter(
            "output",
            keyword,
            annotation=Annotated[Path, typer.Option("-o", "--output", help="folder to save the model in")],
        ),
        inspect.Parameter("overwrite", keyword, annotation=Overwrite, default=False),
        inspect.Parameter("source_size", keyword, annotation=ImageSize, default=None),
        inspect.Parameter("source_fit", keyword, annotation=Fit, default="crop"),
        inspect.Parameter("source_frames", keyword, annotation=Frames, default="first"),
        inspect.Parameter("source_video", keyword, annotation=Video, default="cuts"),
        inspect.Parameter("source_field", keyword, annotation=Field, default=None),
    ]
    if hasattr(cls, "preview"):
        option = typer.Option("--preview", help="only write the augmented views to the .png file of -o")
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
    """Write a contact sheet: one row per image, with the image and its augmented views."""
    from imatlas.cli.shared import refuse_existing
    from imatlas.images.pixels import display_view
    from imatlas.system import processes
    from imatlas.tasks.sample import write_samples

    processes.check_alone("--preview")
    refuse_existing(path, overwrite)
    views, description = model.preview(images)
    pictures = display_view(views.reshape(-1, *views.shape[2:]), images.spec)
    write_samples(pictures, path, recipe={"views": description}, columns=views.shape[1], overwrite=overwrite)
    say(f"Views: {path} (one row per image: the image, then its augmented views)")
    say(f"{description[:1].upper()}{description[1:]}.")


def _as_option(kind: Any) -> Any:
    """The type of the option for a parameter; None if it cannot be given on the command line."""
    from typing import get_args, get_origin

    def simple(k: Any) -> bool:
        return k in (bool, int, float, str) or get_origin(k) is Literal

    if simple(kind):
        return kind
    members = [k for k in get_args(kind) if k is not type(None)]
    if not members or not all(simple(k) for k in members):
        return None
    member = str if str in members else members[0]  # a budget is "90s" or 90; the model parses both
    return member | None if type(None) in get_args(kind) else member


def add_models(arguments: list[str]) -> None:
    """Add the models to `fit`: the requested one with all options, the others with their summary only.

    Models that require labels are refused, because a folder of images has none.
    """
    from imatlas.models import MODELS

    if "fit" not in arguments[:1]:
        return
    for name, target in MODELS.items():
        declared = _declared(target)
        if "labels = 'required'" in declared:
            if name in arguments[1:2]:
                raise typer.BadParameter(
                    f"'{name}' requires labels, and a folder of images has none; label a few images of an atlas and "
                    "run: imatlas classify ATLAS --labels labels.csv"
                )
            continue
        if name in arguments:
            _add_fit_command(name)
            continue
        fit_app.command(name, help=declared[0])(lambda: None)


def _declared(target: str) -> list[str]:
    """The summary of a model's docstring and the assignments of its class body, parsed without a slow import."""
    import ast

    module, _, cls = target.partition(":")
    tree = ast.parse((Path(__file__).parents[1] / "models" / f"{module}.py").read_text(encoding="utf-8"))
    node = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == cls)
    text = (ast.get_docstring(node) or "").partition("\n\n")[0]
    return [text, *(ast.unparse(statement) for statement in node.body if isinstance(statement, ast.Assign))]
