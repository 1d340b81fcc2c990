"""The commands that download, convert and write checkpoints."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from unison_audio.cli.options import OutputPath, Weights
from unison_audio.errors import InputError
from unison_audio.training.configs import WeightsType


def download(
    *,
    variant: Weights,
    only_text: Annotated[bool, Parameter(negative="")] = False,
    only_codec: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Download all that a full-size variant needs, so that later runs need no network.

    Rerun the same command to resume. Files in the cache are not downloaded again.

    Args:
        variant: A variant's name, or a checkpoint's folder.
        only_text: Only the language model.
        only_codec: Only the codec.
    """
    from unison_audio.checkpoint_files import open_checkpoint
    from unison_audio.downloads import PARTS, download_all, needed_downloads
    from unison_audio.variants import VARIANTS

    chosen = [part for part, only in (("text", only_text), ("codec", only_codec)) if only]
    found = VARIANTS.get(variant) or open_checkpoint(variant).variant
    downloads = needed_downloads(found, tuple(chosen) or PARTS)
    for one in downloads:
        amount = f"{one.missing / 1e9:.2f} GB to download" if one.missing else "complete"
        print(f"{one.part}: {one.source}: {amount}", flush=True)
    total = sum(one.missing for one in downloads)
    print(f"{total / 1e9:.2f} GB to download for {found.name}.", flush=True)
    download_all(downloads)
    print(f"All that {found.name} needs from the network is here.")


def export(
    checkpoint: str,
    /,
    *,
    output: OutputPath,
    form: Annotated[str, Parameter(name=["--format"])] = "diffusers",
) -> None:
    """Write a checkpoint as a folder that another library loads.

    Args:
        checkpoint: A variant's name, a checkpoint's folder, or owner/name on the hub.
        output: The folder to write to.
        form: diffusers, for DiffusionPipeline.from_pretrained.
    """
    from unison_audio.diffusers_export import export

    export(checkpoint, output, form)
    print(f"The folder is {output}.")


def quantize(
    checkpoint: str,
    /,
    *,
    output: OutputPath,
    dtype: WeightsType | None = None,
    keep_layer: Annotated[list[str], Parameter(negative_iterable=())] | None = None,
) -> None:
    """Write a checkpoint, or a language model, with int8 weights: less memory and less time.

    Args:
        checkpoint: A variant's name, a checkpoint's folder, or owner/name on the hub; or a language
            model: qwen2.5-omni-7b, qwen2.5-omni-3b, or a folder with its files.
        output: The folder to write to. That of a language model goes into --text-files.
        dtype: Type of a checkpoint's weights that stay in floating point: bfloat16 (default),
            float16 or float32. Those of a language model stay as they are.
        keep_layer: Linear layers of a language model that stay as they are, by a part of their
            names: down_proj, layers.3.
    """
    from unison_audio.files import check_folder
    from unison_audio.text.hub_names import is_language_model

    check_folder(output)
    if is_language_model(checkpoint):
        if dtype is not None:
            raise InputError(
                f"--dtype {dtype} is for checkpoints, and {checkpoint} is a language model, whose "
                "other weights stay as they are; leave it out."
            )
        from unison_audio.text.quantize_qwen import quantize_language_model

        count = quantize_language_model(checkpoint, output, kept=keep_layer or ())
        print(f"The language model is in {output}: {count} linear layers in int8.")
        return
    if keep_layer:
        raise InputError(
            f"--keep-layer {keep_layer[0]} is for language models, and {checkpoint} is none; "
            "leave it out."
        )
    from unison_audio.checkpoint_files import open_checkpoint

    opened = open_checkpoint(checkpoint)
    from unison_audio.checkpoint import disk_type, quantize_checkpoint

    quantize_checkpoint(opened, output, dtype=disk_type(dtype or "bfloat16"))
    print(f"The checkpoint is in {output}.")


def import_release(
    weights: str,
    /,
    *,
    variant: Weights,
    output: OutputPath,
    system_prompt_file: Path | None = None,
    dtype: WeightsType = "float32",
    text_files: Path | None = None,
    seconds: float | None = None,
) -> None:
    """Convert weights of the UNISON release into a checkpoint.

    Args:
        weights: A .safetensors, .pt, .pth or .bin file (also one with moving averages inside), a
            folder with one, or owner/name on the hub, such as jac22/UNISON.
        variant: The variant of the weights, one that 'unison-audio variants' lists.
        output: The checkpoint's folder.
        system_prompt_file: A text file with the system prompt that the weights were trained with.
        dtype: Type of the stored weights: float32, bfloat16 or float16.
        text_files: Folder of the language model; without it the hub is asked for a small file.
        seconds: The length that the weights were trained with: by default 10; 22 for the paper's
            fine-tune to long speech. Everything is sampled at it and cropped.
    """
    from unison_audio.files import check_folder, require_folders
    from unison_audio.release_files import check_length, find_weights, is_on_hub, read_prompt
    from unison_audio.variants import find_variant

    found = find_variant(variant)
    if seconds is not None:
        check_length(seconds, found)
    if system_prompt_file is not None:
        read_prompt(system_prompt_file)
    require_folders(text_files)
    check_folder(output)
    if not is_on_hub(weights):
        find_weights(weights, variant)
    from unison_audio.release import import_release

    import_release(
        weights,
        variant,
        output,
        system_prompt_file=system_prompt_file,
        dtype=dtype,
        text_files=text_files,
        seconds=seconds,
    )
    print(f"The checkpoint is in {output}.")
