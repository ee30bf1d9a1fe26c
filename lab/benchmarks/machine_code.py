"""The machine code of the Triton kernels for one kind of GPU, compiled and counted on any machine.

Times need a GPU, but much of what makes a kernel slow stands in its code: registers that spill to memory, fences that
empty caches, barriers and shuffles in the inner loops, and their number of instructions. Compiler and disassembler
come with Triton.
"""

from __future__ import annotations

import csv
import re
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import torch
from torch import Tensor

from modeling_sft.attention.triton import attention

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
# Numbers of features or, for offsets, none: their tables grow with the length.
RELATIONS = {"none": None, "distances": 2, "normals": 5, "offsets": None}
# A length whose multiples of 16 allow wide loads, as those of long inputs do.
LENGTH, KEYS, HEADS, WIDTH = 4096, 256, 8, 64
# A fence of the whole GPU or the system, or a cache emptied for one; fences of a program's own threads cost little.
GPU_FENCE = re.compile(r"^(MEMBAR\.(?!ALL\.CTA|SC\.CTA)|CCTL\.IVALL|ERRBAR)")
LOCAL_MEMORY = re.compile(r"^(LDL|STL)\b")
POINTERS = {torch.float32: "*fp32", torch.float16: "*fp16", torch.bfloat16: "*bf16"}
POINTERS |= {torch.uint8: "*u8", torch.int64: "*i64"}


class Variant(NamedTuple):
    """What the kernels are compiled for."""

    score: str = "maxout"
    probability: str = "relu"
    relation: str = "none"
    dtype: str = "bfloat16"
    score_channels: int = 8


@dataclass(frozen=True)
class MachineCode:
    """What was counted in the code of one kernel.

    Attributes:
        kernel: its name.
        score, probability, relation, dtype, score_channels: the variant.
        registers: per thread; 255 is the most there are.
        stack_bytes: memory per thread for what the registers do not hold.
        shared_bytes: shared memory per program.
        gpu_fences: instructions that wait until other processors see all writes, or that empty the L1 cache.
        instructions: of the whole kernel.
        inner_loops: instructions of each innermost loop, in the order of the code.
        inner_waits: barriers and shuffles in the innermost loops.
        versions: of Triton, and the architecture.
    """

    kernel: str
    score: str
    probability: str
    relation: str
    dtype: str
    score_channels: int
    registers: int
    stack_bytes: int
    shared_bytes: int
    gpu_fences: int
    instructions: int
    inner_loops: str
    inner_waits: int
    versions: str


class _Recorder:
    """Stands for a kernel, and keeps the arguments it is launched with."""

    def __init__(self, kernel: Any) -> None:
        self.kernel = kernel
        self.arguments: dict[str, Any] = {}

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        return lambda *values, **named: self.arguments.update(
            dict(zip(self.kernel.arg_names, values)) | named, num_warps=named.get("num_warps", 4)
        )


def inspect(variants: Iterable[Variant], architecture: int = 90) -> Iterator[MachineCode]:
    """Compile the forward and both backward kernels of each variant, and count.

    Raises:
        RuntimeError: Triton was imported with TRITON_INTERPRET set, and does not compile.
    """
    import triton

    versions = f"triton {triton.__version__}, sm_{architecture}"
    for variant in variants:
        for recorder in _launched(variant):
            if not isinstance(recorder.kernel, triton.runtime.JITFunction):
                raise RuntimeError("Kernels are not compiled under TRITON_INTERPRET: unset it.")
            compiled = _compile(recorder, architecture)
            name = recorder.kernel.__name__
            yield MachineCode(name, *variant, **_counts(compiled), versions=versions)


def write_table(rows: Iterable[MachineCode], path: Path) -> None:
    """Write rows as CSV."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(MachineCode)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)


def _launched(variant: Variant) -> list[_Recorder]:
    """The kernels of forward and backward with the arguments of a launch, which computes nothing."""
    recorders = [_Recorder(kernel) for kernel in attention._kernels()]
    with mock.patch.object(attention, "_kernels", lambda: recorders):
        output, _ = attention.sampled_attention(*_operands(variant), variant.score, variant.probability)
        output.backward(torch.zeros_like(output))
    return recorders


def _operands(variant: Variant) -> tuple[Tensor | None, ...]:
    dtype = DTYPES[variant.dtype]
    score_dtype = torch.float32 if variant.score == "maxout" else dtype
    query = torch.zeros(1, HEADS, variant.score_channels, LENGTH, dtype=score_dtype, requires_grad=True)
    key = torch.zeros(1, HEADS, variant.score_channels, KEYS, dtype=score_dtype)
    value = torch.zeros(1, HEADS, KEYS, WIDTH, dtype=dtype)
    valid, leak = torch.ones(1, 1, KEYS, dtype=torch.bool), torch.zeros(1, HEADS)
    weight, query_places, key_places = None, None, None
    if variant.relation == "offsets":
        weight = torch.zeros(2, HEADS, 2 * LENGTH)
        query_places, key_places = torch.arange(LENGTH)[None], torch.arange(KEYS)[None, None]
    elif variant.relation != "none":
        axes = 3 if variant.relation == "distances" else 6
        weight = torch.zeros(2, HEADS, RELATIONS[variant.relation] or 0)
        query_places, key_places = torch.zeros(1, axes, LENGTH), torch.zeros(1, 1, axes + 1, KEYS)
    return query, key, value, valid, leak, weight, query_places, key_places


def _compile(recorder: _Recorder, architecture: int) -> Any:
    """The kernel compiled as Triton specialises it: sizes of 1 are constants, multiples of 16 are known as such."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile

    arguments = dict(recorder.arguments)
    options = {"num_warps": arguments.pop("num_warps")}
    signature, constants, attributes = {}, {}, {}
    for place, name in enumerate(recorder.kernel.arg_names):
        value = arguments[name]
        if name.isupper() or (isinstance(value, int) and value == 1):
            signature[name], constants[name] = "constexpr", value
        elif isinstance(value, float):
            signature[name] = "fp32"
        else:
            signature[name] = POINTERS[value.dtype] if isinstance(value, Tensor) else "i32"
            if isinstance(value, Tensor) or value % 16 == 0:
                attributes[(place,)] = [["tt.divisibility", 16]]
    source = ASTSource(recorder.kernel, signature, constants, attributes)
    return compile(source, target=GPUTarget("cuda", architecture, 32), options=options)


def _counts(compiled: Any) -> dict[str, Any]:
    code = _disassembled(compiled.asm["cubin"])
    lines = [(int(address, 16), text) for address, text in re.findall(r"/\*([0-9a-f]{4,})\*/\s+(.*?)\s*;", code)]
    # Without the condition in front, as in "@!P0 BRA 0x7e0".
    instructions = [(address, re.sub(r"^@!?U?P\w+\s+", "", text)) for address, text in lines]
    loops = _inner_loops(instructions)
    inner = [text for start, stop in loops for address, text in instructions if start <= address <= stop]
    usage = dict(re.findall(r"\b(REG|STACK):(\d+)", code))
    spills = any(LOCAL_MEMORY.match(text) for _, text in instructions)
    return {
        "registers": int(usage["REG"]),
        "stack_bytes": int(usage["STACK"]) if spills else 0,
        "shared_bytes": compiled.metadata.shared,
        "gpu_fences": sum(bool(GPU_FENCE.match(text)) for _, text in instructions),
        "instructions": len(instructions),
        "inner_loops": " ".join(str((stop - start) // 16 + 1) for start, stop in loops),
        "inner_waits": sum(bool(re.match(r"(BAR|SHFL|WARPSYNC)\b", text)) for text in inner),
    }


def _disassembled(binary: bytes) -> str:
    """Resources and instructions as text."""
    import triton

    program = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(binary)
        file.flush()
        command = [str(program), "-res-usage", "-sass", file.name]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _inner_loops(instructions: list[tuple[int, str]]) -> list[tuple[int, int]]:
    """First and last address of loops without a loop inside: jumps back, but for the one that ends a program."""
    loops = []
    for address, text in instructions:
        found = re.match(r"BRA\b.*\b0x([0-9a-f]+)", text)
        if found and int(found[1], 16) < address:
            loops.append((int(found[1], 16), address))
    return [loop for loop in loops if not any(other != loop and loop[0] <= other[0] <= loop[1] for other in loops)]
