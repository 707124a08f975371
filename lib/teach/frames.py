"""Scenes computed beforehand, packed for a page: figures whose Python cannot run in a browser."""

from __future__ import annotations

import base64
import zlib
from typing import Any

import numpy as np


def pack(scenes: list[dict[str, Any]]) -> dict[str, Any]:
    """Scenes of one structure as 16-bit numbers, deflated: a few bytes for each number that moves.

    Every list of numbers becomes a slot with its own bounds; frames are stored as differences.
    The largest rounding error is (max - min) / 131068 of a slot.
    """
    slots: list[list[np.ndarray]] = []

    def strip(node: Any, first: bool, at: list[int]) -> Any:
        if isinstance(node, list) and node and all(_number(v) for v in node):
            return _slot(np.array([np.nan if v is None else v for v in node], float), first, at)
        if _number(node) and node is not None:
            return _slot(np.array([float(node)]), first, at, scalar=True)
        if isinstance(node, list):
            return [strip(v, first, at) for v in node]
        if isinstance(node, dict):
            return {k: strip(v, first, at) for k, v in node.items()}
        return node

    def _slot(
        values: np.ndarray, first: bool, at: list[int], scalar: bool = False
    ) -> dict[str, int]:
        if first:
            slots.append([values])
        else:
            if at[0] >= len(slots) or len(slots[at[0]][0]) != len(values):
                raise ValueError("scenes computed beforehand must all have the same structure")
            slots[at[0]].append(values)
        at[0] += 1
        return {"$n": 0 if scalar else len(values)}

    template = None
    for k, scene in enumerate(scenes):
        body = strip({"panels": scene["panels"]}, k == 0, [0])
        template = body if template is None else template
        if body != template:
            raise ValueError("scenes computed beforehand must all have the same structure")
    bounds, columns = [], []
    for slot in slots:
        v = np.stack(slot)
        finite = np.isfinite(v)
        lo, hi = (float(v[finite].min()), float(v[finite].max())) if finite.any() else (0.0, 0.0)
        code = np.where(finite, np.nan_to_num(np.round((v - lo) / ((hi - lo) or 1) * 65534)), 65535)
        bounds.append([v.shape[1], lo, hi])
        columns.append(code.astype(np.uint16))
    table = np.concatenate(columns, axis=1)
    delta = np.diff(table, axis=0, prepend=np.zeros_like(table[:1]))  # wraps modulo 2^16
    data = base64.b64encode(zlib.compress(delta.astype("<u2").tobytes(), 9)).decode()
    return {
        "data": data,
        "slots": bounds,
        "template": template,
        "alts": [s["alt"] for s in scenes],
        "readouts": [s["readouts"] for s in scenes],
    }


def _number(v: Any) -> bool:
    return v is None or (isinstance(v, int | float) and not isinstance(v, bool))
