"""The phantom's body as seen by a T1-weighted gradient echo: in phase and out of phase, in
arbitrary units.

This module owns the signal of each tissue, the shading of the coil, the intensity scale of one
examination and the noise. The images are computed from the noise-free body (HU and labels on the
scan's grid), so MR and CT of a patient show the same voxels. It knows no file.

The difficulties are those of real MR: an intensity scale that differs up to tenfold between
patients (16-bit values without normalisation), shading across the field of view, and noise that is
never negative. Tissues that CT separates by contrast agent look alike here, and the other way
round.

Shapes: (I, J, K) float32 unless stated.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ...core.volume import BODY_HU
from .anatomy import FAT, LEFT_KIDNEY, LIVER, RIGHT_KIDNEY, SPLEEN, WATER
from .shapes import Field

# Signal of everything but the labelled organs, by its HU: air, lung, fat, water, muscle, bowel wall
# and tissue that looks like liver, vessels, marrow and bone.
_HU = (-1000.0, -700.0, -250.0, FAT, WATER, 30.0, 56.0, 112.0, 160.0, 300.0, 430.0)
_SIGNAL = (0.0, 0.02, 0.3, 1.0, 0.20, 0.30, 0.36, 0.50, 0.45, 0.15, 0.10)
# Without contrast agent, the liver is the brightest organ of a T1 image and the spleen is darker
# than the renal cortex (Semelka, Abdominal-Pelvic MRI).
_ORGAN = {LIVER: 0.56, SPLEEN: 0.32, RIGHT_KIDNEY: 0.38, LEFT_KIDNEY: 0.38}
# Signal per HU below the organ's median: vessels in the liver, pyramids in the kidneys.
_TEXTURE = 0.0006
MOST = 4095  # largest value of the 12 bits that scanners store


def t1_dual(
    hu: Field, label: NDArray[np.uint8], rng: np.random.Generator
) -> tuple[NDArray[np.uint16], NDArray[np.uint16]]:
    """Simulate the in-phase and the out-of-phase image, uint16 (I, J, K) from 0 to 4095.

    Out of phase, the signals of water and fat are subtracted (Dixon, Radiology 1984): voxels that
    contain both turn dark, which draws a dark line around every organ that lies in fat.

    Args:
        hu: the noise-free body.
        label: its label values.
        rng: all random parameters of this examination are drawn from it.
    """
    fatty = float(rng.uniform(0.0, 0.12))  # fat fraction of the liver
    water, fat = _parts(hu, label, fatty)
    # Shading is multiplicative; its strength differs between examinations.
    shade = float(rng.uniform(0.8, 1.25)) * np.exp(
        _shading(hu.shape, rng, float(rng.uniform(0.15, 0.35)))
    )
    # The scale is log-uniform: a factor of ten between the extremes.
    scale = float(np.exp(rng.uniform(np.log(180), np.log(1800))))
    noise = float(rng.uniform(0.012, 0.03))
    both = [
        _stored(signal * shade, scale, noise, rng) for signal in (water + fat, np.abs(water - fat))
    ]
    return both[0], both[1]


def _parts(hu: Field, label: NDArray[np.uint8], fatty: float) -> tuple[Field, Field]:
    """Compute the signals of water and of fat in each voxel, blurred in plane as in a scan."""
    # Everything but the organs: signal and fat fraction follow from the HU.
    signal = np.interp(hu, _HU, _SIGNAL).astype(np.float32)
    share = np.clip((WATER - hu) / (WATER - FAT), 0, 1).astype(np.float32) * (hu > BODY_HU)
    # The organs get their own level; the HU contrast inside them is inverted.
    for value, level in _ORGAN.items():
        inside = label == value
        if inside.any():
            signal[inside] = np.clip(
                level + _TEXTURE * (np.median(hu[inside]) - hu[inside]), 0.1, 0.9
            )
            share[inside] = fatty if value == LIVER else 0.0
    return _blurred(signal * (1 - share)), _blurred(signal * share)


def _blurred(field: Field) -> Field:
    """Blur in plane with the kernel (0.2, 0.6, 0.2) along i and j."""
    for axis in (0, 1):
        field = np.float32(0.6) * field + np.float32(0.2) * (
            np.roll(field, 1, axis) + np.roll(field, -1, axis)
        )
    return np.asarray(field, np.float32)


def _shading(shape: tuple[int, ...], rng: np.random.Generator, strength: float) -> Field:
    """Make a smooth field from about -strength to strength, of second order in each axis, like the
    profile of a coil.
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
    """Compute the magnitude of a complex signal with noise (Rician), in the units of the
    examination.
    """
    real, imaginary = (
        np.float32(noise) * rng.standard_normal(signal.shape, dtype=np.float32) for _ in range(2)
    )
    magnitude = np.hypot(signal + real, imaginary) * np.float32(scale)
    return np.asarray(np.rint(magnitude).clip(0, MOST), np.uint16)
