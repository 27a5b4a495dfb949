"""Random command lines in this process: exit status, one line for an error, and predictions as the model has them."""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import reference
from answers import CALLS, FOREIGN, Answers, FoundError, Refused, confirm, without_foreign_warnings

from xpnet import Network, datasets
from xpnet.cli import main


def call_main(*arguments: Any) -> tuple[Any, str, list[str]]:
    """Return the exit status of a command, what it prints, and its lines on the standard error."""
    CALLS["calls"] += 1
    out, err = io.StringIO(), io.StringIO()
    with without_foreign_warnings(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code: Any = main([*map(str, arguments)])
        except SystemExit as error:
            code = error.code
        except BaseException as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            raise FoundError(f"{arguments[0]}: {type(error).__name__} from {place.filename}:{place.lineno}: "
                             f"{str(error)[:300]}") from error
    return code, out.getvalue(), err.getvalue().splitlines()


def command(*arguments: Any) -> str:
    """Return what a command prints; raise ``Refused`` for a line with an error, ``FoundError`` for anything else."""
    code, out, said = call_main(*arguments)
    if not all(line.startswith(f"xpnet {arguments[0]}") for line in said):
        raise FoundError(f"{arguments[0]}: other lines on the standard error: {said}")
    if code == 0:
        return out
    if code not in (1, 2) or not said or FOREIGN.search(said[-1]) or len(said[-1]) < 30:
        raise FoundError(f"{arguments[0]}: exit status {code} and {said}")
    raise Refused(said[-1])


class CommandCalls(Answers):
    """Random command lines on small files."""

    def command(self) -> None:
        """Train, sweep or look for data; predict with what was trained, and write a page about it."""
        choose = self.pick(self._trained, self._trained, self._trained, self._swept, self._looked)
        choose(Path(tempfile.mkdtemp(dir=self.folder)))

    def _data(self, folder: Path) -> tuple[Path, str]:
        """Write features and labels; return the file, and what is wrong with it."""
        n, k = int(self.rng.integers(4, 30)), int(self.rng.integers(1, 5))
        x, (y, _, _) = self.features(n, k), self.labels(n, 3)
        given, labels = np.asarray(x.given), np.asarray(y)
        bad = x.bad if x.bad in ("nan", "inf", "-inf") else ""
        entries = {"x": given, "y": labels}
        if given.ndim != 2 or not given.size:
            bad = "shape"
        elif given.dtype.kind not in "biuf":
            bad = "kind"
        if labels.ndim != 1 or labels.dtype.kind not in "iuU" or len(labels) != len(given):
            bad = "labels"
        elif labels.dtype.kind in "iu" and labels.min() < 0:
            bad = "range"
        if self.rng.random() < 0.3:
            names = [f"f{i}" for i in range(k)]
            entries["feature_names"] = np.asarray(self.pick(names, names, names[:-1] or ["a", "b"], names[:1] * 2))
            if entries["feature_names"].shape != given.shape[1:] or len(set(entries["feature_names"])) != k:
                bad = bad or "names"
        path = folder / self.pick("data.npz", "data.npz", "data.npz", "Data 2.NPZ")
        with path.open("wb") as file:
            np.savez(file, **entries)
        odd = self.rng.random()
        if odd < 0.03:
            path.write_bytes(path.read_bytes()[: int(self.rng.integers(200))])
            bad = "cut"
        elif odd < 0.06:
            path, bad = folder / "none.npz", "absent"
        return path, bad

    def _options(self, **values: tuple[Any, ...]) -> list[str]:
        """Return some of the options, each with one of its values; None stands for a flag."""
        found = []
        for name, choices in values.items():
            if self.rng.random() < 0.35:
                value = self.pick(*choices)
                found += [f"--{name.replace('_', '-')}"] + ([] if value is None else [str(value)])
        return found

    def _wrong(self) -> list[str]:
        """Return an option that has to be refused, now and then."""
        if self.rng.random() > 0.1:
            return []
        return list(self.pick(
            ("--hidden", "0"), ("--hidden", "3,x"), ("--lr", "-1"), ("--lr", "nan"), ("--l2", "inf"), ("--seed", "-1"),
            ("--batch-size", "2.5"), ("--steps", "0"), ("--dropout", "1"), ("--dtype", "float16"), ("--unknown",),
            ("--device", "tpu"), ("--lr", "1e999"), ("--epochs", "nan"), ("--step-size", "0"), ("--momentum", "2")))

    def _trained(self, folder: Path) -> None:
        data, bad = self._data(folder)
        wrong = self._wrong()
        out = folder / "run"
        arguments = ["train", "--data", data, "--steps", self.pick(1, 3), "--batch-size", self.pick(3, 100), "--json"]
        arguments += self._options(
            hidden=("3", "4,2", " 2 , 2"), batch_norm=(None,), dropout=(0.2,), optimizer=("adam", "adamw", "sgd"),
            schedule=("constant", "step", "cosine", "cyclic"), dtype=("float64",), no_standardize=(None,), l2=(0.01,),
            clip_norm=(0.5,), seed=(3, 2**63), lr=(1e-3, 0.1), initializer=("xavier", "normal:0.1"),
            divergence=("halve",), evaluate_every=(2,))
        kept = self.rng.random() < 0.5
        result = json.loads(self._expected(bad or "".join(wrong[:1]), *arguments, *wrong,
                                           *(["--out", out] if kept else [])))
        if not np.isfinite([v for v in result.values() if isinstance(v, float)]).all():
            raise FoundError(f"train: not finite: {result}")
        if not kept:
            return
        network = Network.load(out / "network.safetensors")
        loaded = datasets.load(str(data))
        expected, tolerance = self.modelled(network, np.asarray(loaded.test.x, np.float64))
        if np.abs(expected).max() < 1e4:
            confirm(result["test_loss"], reference.loss(expected, loaded.test.y)[0], 4 * tolerance + 1e-4, "test loss")
        self._predicted(out, network, folder, tuple(loaded.feature_names or ()))
        if self.rng.random() < 0.15:
            command("report", out, "--json")
            if not (out / "report.html").read_text("utf-8").rstrip().endswith("</html>"):
                raise FoundError("report: not a whole page")

    def _expected(self, bad: str, *arguments: Any) -> str:
        found = command(*arguments)
        if bad not in ("", "maybe"):
            raise FoundError(f"{arguments[0]}: accepted although bad: {bad}")
        return found

    def _predicted(self, run: Path, network: Network, folder: Path, known: tuple[str, ...]) -> None:
        """Predict for features in a file of any kind, with or without names, perhaps in another order."""
        n, k = int(self.rng.integers(1, 6)), network.architecture.in_features
        x = self.rng.normal(size=(n, k))
        kind = self.pick("npy", "npz", "csv", "csv", "csv")
        path, bad, seen, options = folder / f"x.{kind}", "", x, []
        if kind == "npy":
            odd = self.features(n, k)
            given = np.asarray(odd.given)
            if given.ndim == 1 and given.shape == (k,):
                seen, given = np.atleast_2d(given.astype(np.float64)), given
            elif given.ndim == 2 and given.dtype.kind in "biuf":
                bad, seen = odd.bad if odd.bad not in ("maybe", "masked") else "", odd.values
            else:
                bad = "kind"
            np.save(path, given)
        elif kind == "npz":
            order = self.rng.permutation(k)
            names = {"feature_names": np.asarray(known)[order]} if known else {}
            np.savez(path, x=x[:, order] if known else x, **names)
        else:
            bad, options = self._csv(path, x, known)
        raw = self.rng.random() < 0.5
        found = json.loads(self._expected(bad, "predict", run, path, "--json", *(["--raw"] if raw else []), *options))
        rows = found["predictions"]
        got = np.asarray([row["outputs" if raw else "probabilities"] for row in rows])
        expected, tolerance = self.modelled(network, seen)
        if not raw:
            expected = np.exp(expected - expected.max(axis=1, keepdims=True))
            expected /= expected.sum(axis=1, keepdims=True)
            if any(row["class"] != found["classes"][int(np.argmax(row["probabilities"]))] for row in rows):
                raise FoundError("predict: not the likeliest class")
        if np.isfinite(tolerance):
            confirm(got, expected, tolerance + 1e-6, "predict")

    def _csv(self, path: Path, x: np.ndarray, known: tuple[str, ...]) -> tuple[str, list[str]]:
        """Write lines of numbers; return what is wrong with them, and options to read them with."""
        k = x.shape[1]
        names = [*known] or [f"n{i}" for i in range(k)]
        lines = [[repr(float(v)) for v in row] for row in x]
        order = self.rng.permutation(k)
        bad, options = "", []
        odd = self.pick("plain", "names", "names", "other order", "other names", "NA", "ragged", "wide", "yes", "text",
                        "comment", "nan", "huge", "bytes", "empty", "quotes", "numbered")
        if odd in ("names", "quotes"):
            lines = [[f'"{name}"' if odd == "quotes" else name for name in names], *lines]
        elif odd == "other order" and known:
            lines = [[line[i] for i in order] for line in [names, *lines]]
        elif odd == "other names":
            lines, bad = [[f"z{i}" for i in range(k)], *lines], "names" if known else ""
        elif odd == "yes":
            lines, options = [names, *lines], ["--header", "yes"]
        elif odd == "numbered":
            lines, bad = [[str(i) for i in range(k)], *lines], "a header or an example"
        elif odd == "wide":
            lines, bad = [[*line, "0"] for line in lines], "width"
        elif odd in ("NA", "nan", "huge", "text", "ragged"):
            line = lines[int(self.rng.integers(len(lines)))]
            line[int(self.rng.integers(k))] = {"nan": "nan", "huge": "1e400", "text": "one"}.get(odd, "")
            bad = odd
            if odd == "ragged":
                line.append("0.5")
            if k == 1 and odd == "NA":  # an empty line would be left out at the end
                line[0] = "NA"
            if k == 1 and line is lines[0]:
                bad = "maybe"  # a name
        text = "".join(",".join(line) + self.pick("\n", "\n", "\r\n") for line in lines)
        if odd == "comment":
            text, bad = f"# a comment\n{text}", "comment" if k > 1 else "maybe"
        elif odd == "empty":
            text, bad = self.pick("", "\n", " \n"), odd
        data = text.encode("utf-8-sig" if self.rng.random() < 0.1 else "utf-8")
        if odd == "bytes":
            data, bad = b"\xff\xfe\xfd" + data, odd
        path.write_bytes(data)
        return bad, options

    def _swept(self, folder: Path) -> None:
        data, bad = self._data(folder)
        wrong = self._wrong()
        arguments = ["sweep", "--data", data, "--steps", 2, "--hidden", "3", "--l2", self.pick("0,0.1", "uniform(0,1)"),
                     "--json", *self._options(seed=("0:2", "3"), batch_norm=(None,), dropout=("0,0.3",), draws=(2,),
                                              lr=("0.01,0.1",), momentum=("0,0.9",), block_size=(1, 2))]
        result = json.loads(self._expected(bad or "".join(wrong[:1]), *arguments, *wrong))
        text = json.dumps(result)
        if "NaN" in text or "Infinity" in text:
            raise FoundError(f"sweep: not finite: {text[:300]}")

    def _looked(self, folder: Path) -> None:
        path = folder / self.pick("a", "a.npz", "a.tar.gz", "cifar-10-python.tar.gz", "a.bin", "a.csv")
        kind = self.pick("absent", "empty", "folder", "bytes", "npz", "text")
        if kind == "folder":
            path.mkdir()
        elif kind == "npz":
            with path.open("wb") as file:
                np.savez(file, x=np.zeros((3, 2)), y=[0, 1, 0])
        elif kind != "absent":
            path.write_bytes({"empty": b"", "text": b"a,b\n1,2\n"}.get(kind, self.rng.bytes(50)))
        code, out, _ = call_main("data", "--data", path, "--json")
        if code != 2 or json.loads(out)["found"]:  # none of these is CIFAR-10
            raise FoundError(f"data: exit status {code} for {kind} {path.name}: {out}")
