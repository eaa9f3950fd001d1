"""The phantom's body as a T1-weighted gradient echo would show it: in phase and out of phase, in
arbitrary units.

Owns how bright each tissue is, the coil's shading, the scale of one examination and the noise. It
is computed from the body without noise (HU and label on the scan's grid), so a patient's MR and CT
show the same voxels. It knows no file.

The traps are those of real MR: a scale that differs up to tenfold between patients (16-bit values
that nobody normalised), shading across the field of view, and noise that is never negative. What CT
tells apart by contrast agent is mixed here, and the other way round.

Shapes: (I, J, K) float32 unless stated.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ...core.volume import BODY_HU
from .anatomy import FAT, LEFT_KIDNEY, LIVER, RIGHT_KIDNEY, SPLEEN, WATER
from .shapes import Field

# Signal of what is no labelled organ, by its HU: air, lung, fat, water, muscle, bowel wall and what
# looks like liver, vessels, marrow and bone.
_HU = (-1000.0, -700.0, -250.0, FAT, WATER, 30.0, 56.0, 112.0, 160.0, 300.0, 430.0)
_SIGNAL = (0.0, 0.02, 0.3, 1.0, 0.20, 0.30, 0.36, 0.50, 0.45, 0.15, 0.10)
# Liver is the brightest organ of a T1 image without contrast agent; the spleen is darker than the
# kidneys' cortex (Semelka, Abdominal-Pelvic MRI).
_ORGAN = {LIVER: 0.56, SPLEEN: 0.32, RIGHT_KIDNEY: 0.38, LEFT_KIDNEY: 0.38}
# signal for one HU away from the organ's median: vessels in the liver, pyramids in the kidneys
_TEXTURE = 0.0006
MOST = 4095  # of the 12 bits that scanners store


def t1_dual(
    hu: Field, label: NDArray[np.uint8], rng: np.random.Generator
) -> tuple[NDArray[np.uint16], NDArray[np.uint16]]:
    """In phase and out of phase, uint16 (I, J, K) from 0 to 4095.

    Out of phase the signals of water and fat are subtracted (Dixon, Radiology 1984): voxels that
    hold both turn dark, as a dark line around every organ that lies in fat.

    Args:
        hu: the body without noise.
        label: its label values.
        rng: everything random of this examination is drawn from it.
    """
    fatty = float(rng.uniform(0.0, 0.12))  # the liver's own share of fat
    water, fat = _parts(hu, label, fatty)
    shade = float(rng.uniform(0.8, 1.25)) * np.exp(
        _shading(hu.shape, rng, float(rng.uniform(0.15, 0.35)))
    )
    scale = float(np.exp(rng.uniform(np.log(180), np.log(1800))))
    noise = float(rng.uniform(0.012, 0.03))
    both = [
        _stored(signal * shade, scale, noise, rng) for signal in (water + fat, np.abs(water - fat))
    ]
    return both[0], both[1]


def _parts(hu: Field, label: NDArray[np.uint8], fatty: float) -> tuple[Field, Field]:
    """The signals of water and of fat in each voxel, blurred in plane as a scan does."""
    signal = np.interp(hu, _HU, _SIGNAL).astype(np.float32)
    share = np.clip((WATER - hu) / (WATER - FAT), 0, 1).astype(np.float32) * (hu > BODY_HU)
    for value, level in _ORGAN.items():
        inside = label == value
        if inside.any():
            signal[inside] = np.clip(
                level + _TEXTURE * (np.median(hu[inside]) - hu[inside]), 0.1, 0.9
            )
            share[inside] = fatty if value == LIVER else 0.0
    return _blurred(signal * (1 - share)), _blurred(signal * share)


def _blurred(field: Field) -> Field:
    for axis in (0, 1):
        field = np.float32(0.6) * field + np.float32(0.2) * (
            np.roll(field, 1, axis) + np.roll(field, -1, axis)
        )
    return np.asarray(field, np.float32)


def _shading(shape: tuple[int, ...], rng: np.random.Generator, strength: float) -> Field:
    """A smooth field between about -strength and strength: second order in each axis, as coils
    give.
    """
    axes = np.meshgrid(
        *(np.linspace(-1, 1, n, dtype=np.float32) for n in shape), indexing="ij", sparse=True
    )
    field = sum(
        float(a) * x + float(b) * (x * x - 0.5)
        for x, a, b in zip(axes, rng.uniform(-1, 1, 3), rng.uniform(-1, 1, 3), strict=True)
    )
    return np.asarray(strength * field / max(1e-6, float(np.abs(field).max())), np.float32)


def _stored(
    signal: Field, scale: float, noise: float, rng: np.random.Generator
) -> NDArray[np.uint16]:
    """The magnitude of a complex signal with noise (Rician), in the examination's own units."""
    real, imaginary = (
        np.float32(noise) * rng.standard_normal(signal.shape, dtype=np.float32) for _ in range(2)
    )
    magnitude = np.hypot(signal + real, imaginary) * np.float32(scale)
    return np.asarray(np.rint(magnitude).clip(0, MOST), np.uint16)
