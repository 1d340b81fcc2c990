"""The command `mcp`: tools for programs with a language model, over standard input and output."""

import base64
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from unison_audio.checks import FileInputs
from unison_audio.cli.listings import domain_listing, tasks_table
from unison_audio.cli.options import LengthFlags, MachineFlags, OutputPath, SamplingFlags, Weights
from unison_audio.errors import InputError

if TYPE_CHECKING:
    from unison_audio.cli.mcp_tools import ToolFolder, ToolSound

ATTACH_MB = 1.0
"""Megabytes up to which a sound is also attached, by default: clients keep it in memory as text."""

_GUIDE = (
    "Generates and edits speech and sound. Call describe_model first: small models know few words "
    "and sounds. Call list_tasks for the wording of instructions. Results are files in the "
    "user's folder."
)

_MEDIA_TYPES = {
    ".wav": "audio/wav",
    ".flac": "audio/flac",
    ".mp3": "audio/mpeg",
    ".ogg": "audio/ogg",
    ".opus": "audio/ogg",
    ".aac": "audio/aac",
    ".m4a": "audio/mp4",
}


def mcp(
    *,
    output: OutputPath,
    recordings: Annotated[list[Path] | None, Parameter(negative="", consume_multiple=False)] = None,
    variant: Weights = "nano",
    attach_mb: float = ATTACH_MB,
    sampling: SamplingFlags = None,
    machine: MachineFlags | None = None,
) -> None:
    """Offer generating and editing as tools to programs that speak MCP, over standard input.

    Args:
        output: Folder of the results; recordings to edit are read from it too.
        recordings: Another folder that recordings may be read from; may be given several times.
        variant: A variant's name, a checkpoint's folder, or owner/name on the hub.
        attach_mb: Sounds up to so many megabytes are also attached to the answer; 0 attaches none.
        sampling: Sampling options; each has its own flag.
        machine: Where to compute; each option has its own flag.
    """
    _require_mcp()
    from unison_audio.checkpoint_files import open_checkpoint
    from unison_audio.cli.mcp_tools import ToolFolder
    from unison_audio.files import make_folder, require_folders

    if not 0 <= attach_mb < float("inf"):
        raise InputError(f"--attach-mb is {attach_mb}; give 0 or more.")
    folders = tuple(folder.absolute() for folder in recordings or ())
    require_folders(*folders)
    tools = ToolFolder(
        opened=open_checkpoint(variant),
        folder=make_folder(output.absolute()),
        recordings=folders,
        sampling=sampling,
        machine=machine or MachineFlags(),
    )
    build_server(tools, variant, round(attach_mb * 1_000_000)).run("stdio")


def build_server(tools: "ToolFolder", variant: str, attach_bytes: int) -> Any:
    """Build the server.

    Args:
        tools: What does the work.
        variant: Name of the variant, for the listings.
        attach_bytes: Size up to which a sound is attached.
    """
    from anyio import from_thread, to_thread
    from mcp.server.mcpserver import Context, MCPServer
    from mcp.server.mcpserver.exceptions import ToolError

    from unison_audio import __version__

    server = MCPServer(
        "unison-audio", instructions=_GUIDE, version=__version__, log_level="WARNING"
    )

    async def answer(context: Any, work: Callable[[Any], "ToolSound"]) -> list[Any]:
        def show(done: int, total: int) -> None:
            from_thread.check_cancelled()
            from_thread.run(partial(context.report_progress, done, total))

        try:
            return _content(await to_thread.run_sync(work, show), attach_bytes)
        except InputError as error:
            raise ToolError(str(error)) from error

    @server.tool(structured_output=False)
    async def generate(
        context: Context,
        instruction: str,
        duration: float | None = None,
        seed: int = 0,
        task: str | None = None,
        reference: str | None = None,
        reference_text: str | None = None,
        file_name: str = "",
    ) -> list[Any]:
        """Generate speech, a sound, or speech with a sound from an instruction.

        Args:
            context: The request.
            instruction: Such as `[Audio] rain`, `[Speech] A male voice saying "good morning"`, or
                `[Audio] From 0s to 2s, a dog barking. From 3s to 5s, rain.` Texts may be long.
            duration: Seconds; by default the model's, or that of the words.
            seed: Another seed gives another sound.
            task: A name of list_tasks, for an instruction without tags.
            reference: File name of a recording of a voice, for `[Speech with voice]`.
            reference_text: The words of the reference.
            file_name: Name of the result, with .wav, .flac, .mp3 or .ogg; by default a number.
        """

        def work(show: Any) -> "ToolSound":
            inputs = FileInputs(
                reference=None if reference is None else tools.recording(reference),
                reference_text=reference_text,
                duration=duration,
                seed=seed,
                task=task,
            )
            return tools.make(instruction, inputs, LengthFlags(), file_name, show)

        return await answer(context, work)

    @server.tool(structured_output=False)
    async def edit(
        context: Context,
        recording: str,
        instruction: str,
        regions: list[str] | None = None,
        extract: bool = False,
        seed: int = 0,
        task: str | None = None,
        file_name: str = "",
    ) -> list[Any]:
        """Edit a recording: add, remove or replace sounds and words.

        Args:
            context: The request.
            recording: File name of the recording in the user's folder.
            instruction: Such as `[Edit][Audio] Add rain`; list_tasks has them all.
            regions: Times outside of which nothing changes, such as `3.2-7.5`.
            extract: Return only what the instruction names, such as `[Audio] rain`.
            seed: Another seed gives another result.
            task: A name of list_tasks, for an instruction without tags.
            file_name: Name of the result, with .wav, .flac, .mp3 or .ogg; by default a number.
        """

        def work(show: Any) -> "ToolSound":
            inputs = FileInputs(source=tools.recording(recording), seed=seed, task=task)
            length = LengthFlags(region=regions or None, extract=extract)
            return tools.make(instruction, inputs, length, file_name, show)

        return await answer(context, work)

    @server.tool(structured_output=False)
    def list_tasks() -> str:
        """List the tasks with the wording of their instructions and the inputs that they need."""
        return tasks_table(variant)

    @server.tool(structured_output=False)
    def describe_model() -> str:
        """Tell the words and sounds that the model knows, and its longest text and sound."""
        return domain_listing(variant)

    return server


def _content(sound: "ToolSound", attach_bytes: int) -> list[Any]:
    """A tool's answer: where the file is, and the sound itself where it is small."""
    from mcp_types import AudioContent, TextContent

    size = sound.path.stat().st_size
    lines = [f"{sound.path}: {sound.task}, {sound.seconds:.2f} s, seed {sound.seed}"]
    lines += [f"Note: {text}" for text in sound.warnings]
    if size > attach_bytes:
        lines.append(f"The file has {size / 1e6:.1f} MB and is not attached.")
        return [TextContent(type="text", text="\n".join(lines))]
    data = base64.b64encode(sound.path.read_bytes()).decode()
    kind = _MEDIA_TYPES.get(sound.path.suffix.lower(), "application/octet-stream")
    return [
        TextContent(type="text", text="\n".join(lines)),
        AudioContent(type="audio", data=data, mime_type=kind),
    ]


def _require_mcp() -> None:
    try:
        import mcp
    except ModuleNotFoundError as error:
        raise InputError(
            "The tools need the package mcp, which is missing; install it with: "
            "pip install 'unison-audio[mcp]'"
        ) from error
    del mcp
