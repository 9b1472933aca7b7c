"""What the Triton kernels ask of a GPU, by compiling them without one: registers, spills, shared memory.

    python benchmarks/kernels_static.py              every configuration, to docs/results/kernels-static.md
    python benchmarks/kernels_static.py --defaults   the default of each kernel and variant, as JSON

The shapes are those of a ResNet-50 at 800 x 1056 pixels, channels_last bfloat16, as the launches specialise
them: pointers, channels and strides are multiples of 16. Registers are per thread.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
os.environ.pop("TRITON_INTERPRET", None)  # an interpreted kernel cannot be compiled
os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")

if importlib.util.find_spec("triton") is None:
    sys.exit("triton is not installed; the package's extra `kernels` brings it.")

import triton  # noqa: E402
import triton.language as tl  # noqa: E402
from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource  # noqa: E402

from pixelbert_fast.kernels.configurations import (  # noqa: E402
    CONFIGURATIONS,
    Configuration,
    sampling_configuration,
)
from pixelbert_fast.kernels.pixel_embed import pixel_embed_forward_kernel  # noqa: E402
from pixelbert_fast.kernels.pool_gather import (  # noqa: E402
    pool_gather_backward_kernel,
    pool_gather_forward_kernel,
)
from pixelbert_fast.kernels.sample_positions import sample_positions_kernel  # noqa: E402

REPORT = ROOT / "docs" / "results" / "kernels-static.md"
TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "sm_100": GPUTarget("cuda", 100, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}
# Bytes of shared memory that one program may have: CUDA programming guide, "Technical specifications per
# compute capability"; AMD CDNA 3 instruction set architecture, "LDS".
MOST_SHARED = {"sm_80": 163 << 10, "sm_90": 227 << 10, "sm_100": 227 << 10, "gfx942": 64 << 10}
POINTERS = {
    "positions": "*i32",
    "image_index": "*i32",
    "winners": "*u8",
    "readers": "*i64",
    "starts": "*i64",
    "valid_grid": "*i32",
    "keys": "*i64",
    "seed": "*i64",
}
NOT_MULTIPLES = {"rows_total", "count", "places", "width", "height", "batch", "tiles"}


def constants(kernel: str, variant: str, configuration: Configuration) -> dict[str, object]:
    """The compile-time arguments of a launch, unit strides included."""
    blocks = configuration.blocks
    if kernel == "sample_positions":
        return {"KEYED": True, "BLOCK": blocks[0]}
    if kernel in ("project_pool", "pool_project"):
        return {
            "stride_c": 1,
            "stride_weight_c": 1,
            "INDEXED": True,
            "PROJECT_FIRST": kernel == "project_pool",
            "PRECISION": "tf32" if variant == "tf32" else "ieee",
            "FACTOR": tl.bfloat16 if variant == "16-bit" else tl.float32,
            "WIDE": tl.float32,
            "BLOCK_ROWS": blocks[0],
            "BLOCK_DIMENSIONS": blocks[1],
            "BLOCK_CHANNELS": blocks[2],
        }
    shared = {
        "stride_c" if variant == "channels_last" else "stride_w": 1,
        "WIDE": tl.float32,
        "BLOCK_CHANNELS": blocks[1],
    }
    if kernel == "pool_gather_backward":
        return shared | {"stride_out_c": 1, "BLOCK_WINDOWS": blocks[0]}
    return shared | {"INDEXED": True, "EMBEDDED": True, "SAVE_WINNERS": True, "BLOCK_ROWS": blocks[0]}


KERNELS = {
    "sample_positions": sample_positions_kernel,
    "pool_gather_forward": pool_gather_forward_kernel,
    "pool_gather_backward": pool_gather_backward_kernel,
    "project_pool": pixel_embed_forward_kernel,
    "pool_project": pixel_embed_forward_kernel,
}


def cases(*, defaults_only: bool) -> list[tuple[str, str, Configuration]]:
    """Kernel, variant and configuration; `sample_positions` by the number of places its block holds."""
    found = [
        ("sample_positions", f"{places} places", sampling_configuration(places))
        for places in ((1024,) if defaults_only else (256, 1024, 4096))
    ]
    for (kernel, variant), configurations in CONFIGURATIONS.items():
        found += [(kernel, variant, one) for one in (configurations[:1] if defaults_only else configurations)]
    return found


def compiled(kernel: str, variant: str, configuration: Configuration, target: GPUTarget):
    """The kernel as Triton compiles it for `target`."""
    function = KERNELS[kernel]
    fixed = constants(kernel, variant, configuration)
    element = "*fp32" if variant in ("32-bit", "tf32") else "*bf16"
    floats = {"features", "weight", "vector", "embedding", "out", "grad_out", "grad_features"}
    signature, attributes = {}, {}
    for index, name in enumerate(function.arg_names):
        if name in fixed:
            signature[name] = "constexpr"
            continue
        signature[name] = element if name in floats else POINTERS.get(name, "i32")
        if kernel == "sample_positions" and name == "out":
            signature[name] = "*i32"
        if name not in NOT_MULTIPLES:
            attributes[(index,)] = [["tt.divisibility", 16]]
    source = ASTSource(
        function,
        signature,
        {(function.arg_names.index(name),): value for name, value in fixed.items()},
        attributes,
    )
    options = {"num_warps": configuration.num_warps, "num_stages": configuration.num_stages}
    return triton.compile(source, target=target, options=options)


def resources(binary) -> dict[str, int]:
    """Registers a thread, spilled bytes (AMD: registers), and bytes of shared memory of a compiled kernel."""
    if "amdgcn" in binary.asm:
        text = binary.asm["amdgcn"]
        spills = int(re.search(r"\.vgpr_spill_count:\s+(\d+)", text)[1])
        spills += int(re.search(r"\.sgpr_spill_count:\s+(\d+)", text)[1])
        registers = int(re.search(r"\.vgpr_count:\s+(\d+)", text)[1])
    else:
        # The stack frame holds what is spilled, and these kernels put nothing else on it.
        tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
        with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
            file.write(binary.asm["cubin"])
            file.flush()
            command = [str(tool), "-res-usage", file.name]
            text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        spills = int(re.search(r"STACK:(\d+)", text)[1]) + int(re.search(r"LOCAL:(\d+)", text)[1])
        registers = int(re.search(r"REG:(\d+)", text)[1])
    return {"registers": registers, "spills": spills, "shared": binary.metadata.shared}


def rows(*, defaults_only: bool) -> list[dict]:
    """One row for each case and target."""
    found = []
    for kernel, variant, configuration in cases(defaults_only=defaults_only):
        for name, target in TARGETS.items():
            used = resources(compiled(kernel, variant, configuration, target))
            found.append(
                {
                    "kernel": kernel,
                    "variant": variant,
                    "blocks": list(configuration.blocks),
                    "warps": configuration.num_warps,
                    "stages": configuration.num_stages,
                    "target": name,
                    **used,
                    "most_shared": MOST_SHARED[name],
                }
            )
    return found


def report(found: list[dict]) -> str:
    """The rows as a page: one line a configuration, one column a target."""
    lines = [
        "# The Triton kernels, compiled without a GPU",
        "",
        f"Written by `make kernels-static` with Triton {triton.__version__}; nothing was timed. A cell is",
        "registers a thread / spills / KiB of shared memory a program. Spills are bytes (from the cubin's",
        "resource report) on sm_80, sm_90 and sm_100, registers (from the assembly's metadata) on gfx942.",
        "A cell in brackets asks for more shared memory than the device has (163, 227, 227 and 64 KiB):",
        "a search passes over it. bfloat16, except 32-bit (float32) and tf32 (float32, factors rounded). The",
        "first line of a kernel and variant is the stored default. `sample_positions` holds a whole grid in",
        "one program: beyond 4,096 places it computes the same and may spill.",
        "",
        f"| kernel | variant | blocks | warps | stages | {' | '.join(TARGETS)} |",
        f"|---|---|---|---|---|{'---|' * len(TARGETS)}",
    ]
    for start in range(0, len(found), len(TARGETS)):
        group = found[start : start + len(TARGETS)]
        cells = []
        for row in group:
            cell = f"{row['registers']} / {row['spills']} / {row['shared'] / 1024:.1f}"
            cells.append(cell if row["shared"] <= row["most_shared"] else f"({cell})")
        first = group[0]
        blocks = " x ".join(map(str, first["blocks"]))
        about = [first["kernel"], first["variant"], blocks, str(first["warps"]), str(first["stages"])]
        lines.append(f"| {' | '.join(about + cells)} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--defaults", action="store_true", help="only the defaults, printed as JSON")
    arguments = parser.parse_args()
    found = rows(defaults_only=arguments.defaults)
    if arguments.defaults:
        print(json.dumps(found))
        return 0
    REPORT.write_text(report(found), encoding="utf-8")
    spilling = [row for row in found if row["spills"]]
    for row in spilling:
        print(f"spills: {row}", file=sys.stderr)
    print(f"{len(found)} binaries, {len(spilling)} with spills: {REPORT.relative_to(ROOT)}")
    return 1 if spilling else 0


if __name__ == "__main__":
    sys.exit(main())
