"""Count the lines of code of the package, without docstrings and comments: ``python tools/lines.py [REVISION]``."""

from __future__ import annotations

import ast
import io
import statistics
import subprocess
import sys
import tokenize
from pathlib import Path

ROOT = Path(__file__).parents[1]


def code_lines(source: str) -> int:
    """Return the number of lines with code on them."""
    ignored = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENCODING,
               tokenize.ENDMARKER}
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in ignored:
            lines |= set(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and ast.get_docstring(
                node, clean=False) is not None:
            text = node.body[0]
            lines -= set(range(text.lineno, (text.end_lineno or text.lineno) + 1))
    return len(lines)


def main() -> int:
    """Print the sum, and the median and largest file."""
    if revision := "".join(sys.argv[1:2]):
        def git(*arguments: str) -> str:
            return subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True).stdout  # noqa: S607

        names = [name for name in git("ls-tree", "-r", "--name-only", revision, "xpnet").splitlines()
                 if name.endswith(".py")]
        sources = {name: git("show", f"{revision}:{name}") for name in names}
    else:
        sources = {str(path.relative_to(ROOT)): path.read_text("utf-8") for path in (ROOT / "xpnet").rglob("*.py")}
    code = {name: code_lines(source) for name, source in sources.items()}
    whole = {name: source.count("\n") for name, source in sources.items()}
    largest = max(whole, key=lambda name: whole[name])
    print(f"{len(code)} files, {sum(code.values()):,} lines of code; "
          f"all lines: median {statistics.median(whole.values()):g}, largest {whole[largest]} ({largest})")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
