"""Writes the file lists of docs/architecture.md from the first sentence of each file: `make docs`."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "architecture.md"
START, END = "<!-- printed by docs/make_map.py -->\n", "<!-- end -->\n"


def file_map(package: Path) -> str:
    """Every file of the package under its folder, each with what its docstring says first."""
    lines = []
    for folder in sorted({path.parent for path in package.rglob("*.py")}):
        lines.append(f"\n### `{folder.relative_to(package.parent)}/`\n")
        if about := _about(folder / "__init__.py"):
            lines.append(about + "\n")
        for path in sorted(folder.glob("*.py")):
            if path.name != "__init__.py":
                lines.append(f"- `{path.name}`: {_about(path)}")
    return "\n".join(lines).lstrip("\n") + "\n"


def with_map(page: str) -> str:
    """The page with the list between its marks made anew."""
    before, _, rest = page.partition(START)
    _, _, after = rest.partition(END)
    return before + START + "\n" + file_map(ROOT / "src" / "llavakit") + "\n" + END + after


def _about(path: Path) -> str:
    doc = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) if path.is_file() else None
    return " ".join((doc or "").partition("\n\n")[0].split())


if __name__ == "__main__":
    PAGE.write_text(with_map(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    print(PAGE.relative_to(ROOT), file=sys.stderr)
