"""Native loops by the instructions they are made for: plain C, and each set the processor has.

All give the same bits, which is checked before anything is timed. With --before another checkout's
loops stand beside them, as that checkout chooses them on this processor.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

from common import loops, machine
from common.before import checkout, in_checkout
from common.memory import in_new_process
from common.options import positive
from common.output import note, print_json, print_ratios, print_table, ratio
from common.timing import Seconds
from lowshot_kedro import native

BEFORE = "before"
# What the search of lists and the descent are made of.
SEARCHES = ("search of lists", "descent")
# How many times faster than the code before AVX2 had kernels, built without AVX-512.
WANTED = {f"{BEFORE}_vs_avx2_{name.replace(' ', '_')}": 2.5 for name in SEARCHES}


def parser_of_options() -> argparse.ArgumentParser:
    """Sizes, and what to measure."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    available = native.available_kernels()
    add("--rows", type=positive, default=50_000, help="vectors")
    add("--columns", type=positive, default=256, help="of the vectors")
    add("--kernels", nargs="+", default=available, choices=available, metavar="NAME", help="which")
    add("--before", type=checkout, metavar="FOLDER", help="a built checkout to measure beside them")
    add("--threads", type=positive, default=native.get_num_threads(), help="for everybody")
    add("--repeat", type=positive, default=5, help="rounds of measurement")
    add("--seed", type=int, default=0, help="of the vectors")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print tables, and the line of JSON last."""
    parser = parser_of_options()
    options = parser.parse_args(arguments)
    if options.rows < 2 * loops.ROWS_OF_LIST:
        parser.error(f"--rows: at least {2 * loops.ROWS_OF_LIST}, got {options.rows}")
    sizes = (options.rows, options.columns, options.seed, options.threads)
    seconds = Seconds()
    expected: dict[str, str] = {}
    for _ in range(options.repeat):
        for kernels in options.kernels:
            note(kernels)
            found, checksums = in_new_process(loops.measure, *sizes, kernels)
            seconds.add(kernels, found)
            expected = expected or checksums
            different = [name for name in expected if expected[name] != checksums[name]]
            if different:
                raise SystemExit(f"{kernels}: other results than others of {different}")
        if options.before is not None:
            note(BEFORE)
            with tempfile.TemporaryDirectory() as folder:
                found, _ = in_checkout(options.before, loops.measure, Path(folder), *sizes, None)
            seconds.add(BEFORE, found)
    names = [*options.kernels, *([BEFORE] if options.before is not None else [])]
    print(
        f"{options.rows} vectors, {options.columns} columns, {options.threads} threads, shortest "
        f"of {options.repeat}"
    )
    print_table(
        "Milliseconds",
        ("loop", *names),
        [
            [loop, *(f"{1000 * seconds.best(name, loop):.1f}" for name in names)]
            for loop in expected
        ],
    )
    base = BEFORE if options.before is not None else options.kernels[0]
    ratios, of_medians = {}, {}
    for name in options.kernels:
        for loop in expected:
            if name != base:
                key = f"{base}_vs_{name}_{loop.replace(',', '').replace(' ', '_')}"
                ratios[key] = ratio(seconds.best(base, loop), seconds.best(name, loop))
                of_medians[key] = ratio(seconds.median(base, loop), seconds.median(name, loop))
    if ratios:
        print_ratios(ratios, of_medians, WANTED)
    print_json(
        {
            "benchmark": "kernels",
            "machine": machine.describe(),
            "sizes": {
                "rows": options.rows,
                "columns": options.columns,
                "threads": options.threads,
                "repeat": options.repeat,
                "seed": options.seed,
            },
            "seconds": seconds.summary(),
            "ratios": ratios,
            "ratios_of_medians": of_medians,
            "wanted": WANTED,
        }
    )


if __name__ == "__main__":
    main()
