"""`python -m tests.fuzz [TARGET [SECONDS]]`: what ./scripts/fuzz starts."""

import sys
from pathlib import Path

from tests.fuzz.engines import CORPUS, have_atheris, with_atheris, with_hypothesis
from tests.fuzz.targets import TARGETS


def main(arguments: list[str], corpus: Path = CORPUS) -> int:
    """0: no promise was broken, 1: one was, 2: the arguments are wrong."""
    if not arguments:
        for name, target in TARGETS.items():
            print(f"{name:13} {target.purpose.splitlines()[0]}")
        return 0
    name, seconds = arguments[0], arguments[1] if len(arguments) > 1 else "60"
    if name not in TARGETS or not seconds.isdigit() or len(arguments) > 2:
        print(f"fuzz TARGET [seconds]; the targets are {', '.join(TARGETS)}.", file=sys.stderr)
        return 2
    if have_atheris():
        result = with_atheris(name, int(seconds), corpus)
        if result.found:
            print(result.found, file=sys.stderr)
            print(f"What broke it lies in {corpus / name}-found.", file=sys.stderr)
    else:
        kept = [path.read_bytes() for path in sorted((corpus / name).glob("*"))]
        result = with_hypothesis(TARGETS[name], seconds=int(seconds), corpus=kept)
    print(f"{name}: {result}")
    return 1 if result.found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
