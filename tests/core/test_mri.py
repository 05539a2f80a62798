"""MRI: a lawful operator, scans from files of every kind, maps, baselines, scores, the command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pytest
import sigpy.mri
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.metrics import structural_similarity

import lipkit as lk
from lipkit.cli import main
from lipkit.data import registry
from lipkit.physics import MRI, ComplexGaussian, sampling_mask
from lipkit.physics.mri import fft, ifft, to_complex
from lipkit.testing import check_adjoint, check_linear

SIZE = (48, 40)


def random_complex(*shape: int, seed: int = 0, dtype=torch.complex64) -> torch.Tensor:
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def scan():
    return lk.data.scan("slice-1", size=64)


@pytest.fixture(scope="module")
def problem(scan):
    return scan.undersampled(sampling_mask((64, 64), 4, seed=1))


# --- the operator -------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(
    coils=st.integers(1, 5),
    height=st.integers(8, 21),
    width=st.integers(8, 21),
    acceleration=st.floats(1, 4),
    pattern=st.sampled_from(["equispaced", "random"]),
    batch=st.sampled_from([(), (2,)]),
)
def test_it_is_linear_with_a_true_adjoint(coils, height, width, acceleration, pattern, batch):
    maps = random_complex(coils, height, width, dtype=torch.complex128)
    op = MRI(maps, sampling_mask((height, width), acceleration, pattern, seed=3))
    check_linear(op, (*batch, 2, height, width))
    check_adjoint(op, (*batch, 2, height, width))


def test_check_adjoint_sees_a_map_that_is_not_conjugated():
    class Wrong(MRI):
        def A_adjoint(self, y):
            self.maps = self.maps.conj()
            back = super().A_adjoint(y)
            self.maps = self.maps.conj()
            return back

    with pytest.raises(lk.Error, match="not the adjoint"):
        check_adjoint(Wrong(random_complex(3, 9, 8), torch.ones(9, 8)), (2, 9, 8))


@pytest.mark.parametrize("size", [(32, 32), (33, 40), (31, 27)])
def test_it_is_the_sense_operator_of_sigpy(size):
    op = MRI(random_complex(6, *size), sampling_mask(size, 3))
    sense = sigpy.mri.linop.Sense(op.maps.numpy(), weights=op.sampling.numpy())
    x = torch.randn(2, *size)
    y = op.A(x)
    assert y.dtype == torch.complex64
    np.testing.assert_allclose(y.numpy(), sense(to_complex(x)[0].numpy()), atol=1e-5)
    np.testing.assert_allclose(
        to_complex(op.A_adjoint(y))[0].numpy(), sense.H(y.numpy()), atol=1e-5
    )


def test_maps_are_scaled_to_one_where_they_are_not_zero():
    maps = 7 * random_complex(4, *SIZE)
    maps[:, :10] = 0
    op = MRI(maps, torch.ones(SIZE))
    torch.testing.assert_close(op.maps.abs().square().sum(0), op.support[0])
    assert op.support.shape == (1, *SIZE) and float(op.support.mean()) == pytest.approx(38 / 48)
    x = torch.randn(2, *SIZE)
    torch.testing.assert_close(op.A_adjoint(op.A(x)), x * op.support)  # all of k-space


def test_the_transform_is_centred_and_keeps_energy():
    z = random_complex(3, 9, 8)
    torch.testing.assert_close(ifft(fft(z)), z)
    assert float(fft(z).norm()) == pytest.approx(float(z.norm()), rel=1e-5)
    flat = fft(torch.ones(9, 8))
    assert int(flat.abs().argmax()) == 4 * 8 + 4 and float(flat[4, 4].real) > 0


def test_noise_is_complex_repeatable_and_only_where_something_is_measured():
    maps = torch.ones(4, 200, 200)
    op = MRI(maps, sampling_mask((200, 200), 4), sigma=0.1)
    x = torch.zeros(2, 200, 200)
    y, again, other = (op.measure(x, seed=s) for s in (1, 1, 2))
    assert torch.equal(y, again) and not torch.equal(y, other)
    assert torch.equal(y != 0, (op.sampling != 0).expand_as(y))
    measured = y[:, op.sampling != 0]
    for part in (measured.real, measured.imag):
        assert float(part.std()) == pytest.approx(0.1, rel=0.02)
    image = MRI(maps, torch.ones(200, 200), sigma=0.1)
    assert float(image.A_adjoint(image.measure(x)).std()) == pytest.approx(0.1, rel=0.02)


def test_what_it_keeps_from_inference_mode_can_be_fitted_afterwards():
    op = MRI(random_complex(2, 16, 16), torch.ones(16, 16))
    with torch.inference_mode():
        op.measure(torch.rand(2, 16, 16, dtype=torch.float64))
    x = torch.rand(2, 16, 16, dtype=torch.float64, requires_grad=True)
    op.A(x).abs().square().sum().backward()
    assert x.grad is not None


# --- sampling -----------------------------------------------------------------------------------


@pytest.mark.parametrize("pattern", ["equispaced", "random"])
@pytest.mark.parametrize("acceleration", [2, 4, 8])
def test_lines_are_whole_as_many_as_asked_and_full_in_the_centre(pattern, acceleration):
    mask = sampling_mask((32, 320), acceleration, pattern, seed=4)
    line = mask[0]
    assert torch.equal(mask, line.expand(32, 320)) and line.sum() == 320 / acceleration
    centre = round(0.32 * 320 / acceleration)
    assert line[160 - centre // 2 : 160 - centre // 2 + centre].all()
    other = sampling_mask((32, 320), acceleration, pattern, seed=5)
    assert not torch.equal(mask, other) and other.sum() == mask.sum()
    if pattern == "equispaced":
        gaps = line.nonzero()[:, 0].diff()
        outer = gaps[gaps > 1][1:-1]
        assert outer.max() - outer.min() <= 1 + centre  # one gap spans the centre
    assert sampling_mask((32, 320), acceleration, pattern, calibration=0).sum() == mask.sum()


@pytest.mark.parametrize(("size", "acceleration"), [((64, 64), 4), ((96, 96), 8)])
def test_poisson_discs_are_spread_and_have_a_centre(size, acceleration):
    mask = sampling_mask(size, acceleration, "poisson", calibration=12)
    assert mask.shape == size and mask.unique().tolist() == [0, 1]
    assert 1 / float(mask.mean()) == pytest.approx(acceleration, rel=0.02)
    middle = size[0] // 2
    assert mask[middle - 6 : middle + 6, middle - 6 : middle + 6].all()
    assert torch.equal(mask, sampling_mask(size, acceleration, "poisson", calibration=12))


MAPS = torch.ones(4, 16, 16)
BAD = {
    "maps of two axes": (lambda: MRI(torch.ones(16, 16), torch.ones(16)), "complex tensor"),
    "maps of a list": (lambda: MRI([1], torch.ones(16)), "got a list"),
    "maps of zeros": (lambda: MRI(0 * MAPS, torch.ones(16)), "not all zero"),
    "maps with NaN": (lambda: MRI(MAPS * float("nan"), torch.ones(16)), "finite"),
    "sampling of another size": (lambda: MRI(MAPS, torch.ones(16, 17)), "got shape (16, 17)"),
    "sampling of half": (lambda: MRI(MAPS, torch.full((16,), 0.5)), "only 0 (not measured)"),
    "sampling of nothing": (lambda: MRI(MAPS, torch.zeros(16)), "measures nothing"),
    "negative sigma": (lambda: MRI(MAPS, torch.ones(16), -1), "at least 0, got -1"),
    "noise of NaN": (lambda: ComplexGaussian(float("nan")), "at least 0, got nan"),
    "colour picture": (lambda: MRI(MAPS, torch.ones(16)).A(torch.ones(3, 16, 16)), "(2, 16, 16)"),
    "real k-space": (lambda: MRI(MAPS, torch.ones(16)).A_adjoint(MAPS), "complex k-space"),
    "acceleration": (lambda: sampling_mask((64, 64), 0.5), "at least 1, got 0.5"),
    "no line left": (lambda: sampling_mask((64, 64), 200), "leaves none of 64 lines"),
    "pattern": (lambda: sampling_mask((64, 64), 4, "spiral"), "one of equispaced"),
    "shape": (lambda: sampling_mask((4, 64)), "each at least 8, got (4, 64)"),
    "wide centre": (lambda: sampling_mask((64, 64), 4, calibration=17), "17 calibration lines"),
    "wide disc": (lambda: sampling_mask((64, 64), 8, "poisson", 40), "no Poisson disc of 64x64"),
    "coils": (lambda: lk.data.scan("slice-1", coils=1), "from 2 to 128, got 1"),
    "scan size": (lambda: lk.data.scan("slice-1", size=4), "at least 16, got 4"),
    "scan sigma": (lambda: lk.data.scan("slice-1", sigma="low"), "sigma must be a number"),
    "scan name": (lambda: lk.data.scan("slice-9"), "no scan called 'slice-9'; the scans are"),
    "scan of a dict": (lambda: lk.data.scan({}), "a path or an array, not dict"),
    "maps for a picture": (lambda: lk.data.scan("phantom", maps=MAPS), "takes no maps"),
    "real data": (lambda: lk.mri.espirit(torch.ones(4, 32, 32)), "must be complex"),
    "narrow centre": (lambda: lk.mri.espirit(random_complex(4, 32, 32), 8), "give the maps"),
    "share": (lambda: lk.mri.hold_out(MRI(MAPS, torch.ones(16)), MAPS, 1), "between 0 and 1"),
    "three channels": (lambda: lk.mri.magnitude(torch.ones(3, 16, 16)), "two channels"),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_input_gets_one_clear_sentence(what):
    call, part = BAD[what]
    with pytest.raises(lk.Error) as caught:
        call()
    assert part in str(caught.value) and "\n" not in str(caught.value)


def test_without_sigpy_it_says_how_to_get_it(monkeypatch, problem):
    monkeypatch.setitem(sys.modules, "sigpy.mri.app", None)
    with pytest.raises(lk.Error, match=r"pip install 'lipkit\[mri\]'"):
        lk.mri.cg_sense(*problem)


# --- scans --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["slice-1", "slice-2", "slice-3", "slice-4", "phantom"])
def test_embedded_scans_fit_their_own_operator(name):
    found = lk.data.scan(name, size=48, sigma=0.01)
    assert name in lk.data.scans() and name in repr(found)
    assert found.kspace.dtype == found.maps.dtype == torch.complex64
    assert found.target.dtype == found.mask.dtype == found.sampling.dtype == torch.float32
    assert float(lk.mri.magnitude(found.target).max()) == pytest.approx(1, abs=1e-5)
    assert float(found.target[1].abs().max()) > 0.2  # it has a phase
    op, y = found.undersampled()
    assert float((y - op.A(found.target)).real.std()) == pytest.approx(0.01, rel=0.05)
    assert torch.equal(op.support, found.mask)
    assert lk.mri.scores(op.A_adjoint(y), found.target)["psnr"] > 35


def test_embedded_scans_differ_and_repeat():
    first, second = (lk.data.scan(f"slice-{i}", size=48) for i in (1, 2))
    assert lk.mri.scores(first.target, second.target)["psnr"] < 25
    assert torch.equal(first.kspace, lk.data.scan("slice-1", size=48).kspace)
    assert not torch.equal(first.kspace, lk.data.scan("slice-1", size=48, seed=1).kspace)
    assert torch.equal(first.target, lk.data.scan("slice-1", size=48, seed=1).target)


def test_the_slices_come_along_with_their_notice():
    assert lk.data.scan(size=32).name == "slice-1"
    notice = Path(lk.data.__file__).with_name("brain.txt").read_text()
    assert "McConnell Brain Imaging Centre" in notice and "Permission to use, copy" in notice


def test_the_measured_brain_is_a_registered_file_without_a_target(monkeypatch, tmp_path, scan):
    assert "mri/brain_8ch_ksp.npy" in registry.entries()
    disc = sampling_mask((64, 64), 4, "poisson", calibration=24)
    np.save(tmp_path / "k.npy", (scan.kspace * disc).numpy())
    monkeypatch.setattr(registry, "find", lambda name: tmp_path / "k.npy")
    found = lk.data.scan("brain-8ch")
    assert found.target is None and torch.equal(found.sampling, disc)
    assert "8 coils, 64x64, undersampled" in repr(found)
    op, y = found.undersampled()
    assert torch.equal(y, found.kspace)
    zero_filled = lk.mri.magnitude(lk.mri.zero_filled(op, y))
    assert float(zero_filled.max()) == pytest.approx(1, abs=1e-5)


def test_espirit_finds_the_simulated_maps(scan):
    maps = lk.mri.espirit(scan.kspace)
    assert maps.dtype == torch.complex64
    overlap = (maps.conj() * scan.maps).sum(0).abs()
    lit = lk.mri.magnitude(scan.target)[0] > 0.2
    assert float(overlap[lit].quantile(0.02)) > 0.99
    assert float((maps.abs().sum(0) > 0).float().mean()) < 0.9  # and where there is nothing


def test_measured_kspace_gives_the_picture_up_to_a_phase(scan, tmp_path):
    np.save(tmp_path / "k.npy", 1e-6 * scan.kspace.numpy())
    for maps in (None, scan.maps, scan.maps.numpy()):
        found = lk.data.scan(tmp_path / "k.npy", maps=maps)
        assert found.target is not None and found.name == "k.npy"
        assert lk.mri.psnr(found.target, scan.target * found.mask) > 25
    half = lk.data.scan(scan.kspace, size=32)
    assert half.kspace.shape == (8, 32, 32)
    small = torch.nn.functional.avg_pool2d(lk.mri.magnitude(scan.target), 2)
    assert lk.metrics.psnr(lk.mri.magnitude(half.target), small) > 20


def test_what_counts_as_undersampled(scan):
    def full(sampling):
        return lk.data.scan(scan.kspace * sampling, maps=scan.maps).target is not None

    y, x = torch.meshgrid(*[torch.linspace(-1, 1, 64)] * 2, indexing="ij")
    assert full((y**2 + x**2 < 1).float())  # corners left out
    assert full((x.abs() < 0.7).float()) and full((y > -0.6).float())  # padding, partial Fourier
    assert not full(sampling_mask((64, 64), 2, "equispaced", calibration=30))
    assert not full(sampling_mask((64, 64), 2).T)
    assert not full(sampling_mask((64, 64), 2, "poisson"))
    assert not full(sampling_mask((64, 64), 1.6, "poisson", calibration=40))


def test_given_sampling_is_combined_with_what_was_measured(scan):
    lines = sampling_mask((64, 64), 2, calibration=24)
    found = lk.data.scan(scan.kspace, sampling=lines[0])
    assert found.target is None and torch.equal(found.sampling, lines)
    op, y = found.undersampled(sampling_mask((64, 64), 4, seed=7))
    assert torch.equal(y != 0, ((op.sampling != 0) & (lines != 0)).expand_as(y))
    with pytest.raises(lk.Error, match="picks nothing"):
        found.undersampled(1 - lines)
    with pytest.raises(lk.Error, match=r"the sampling has shape \(63,\)"):
        lk.data.scan(scan.kspace, sampling=torch.ones(63))
    with pytest.raises(lk.Error, match=r"the coil maps have shape .8, 64, 63., the k-space"):
        lk.data.scan(scan.kspace, maps=scan.maps[..., :63])


# --- files --------------------------------------------------------------------------------------


def fastmri(path: Path, **changes) -> Path:
    """Two slices as fastMRI stores them: read out twice as far as the picture, small numbers."""
    found = lk.data.scan("slice-1", size=64)
    image = np.zeros((2, 8, 128, 72), np.complex64)
    image[1, :, 32:96, 4:68] = 1e-5 * ifft(found.kspace).numpy()
    rss = np.sqrt((np.abs(image) ** 2).sum(1))[:, 32:96, 4:68]
    content = {
        "kspace": fft(torch.from_numpy(image)).numpy(),
        "reconstruction_rss": rss.astype(np.float32),
        "ismrmrd_header": b"<reconSpace><matrixSize><x>64</x><y>64</y></matrixSize></reconSpace>",
    } | changes
    with h5py.File(path, "w") as file:
        for key, value in content.items():
            if value is not None:
                file[key] = value
    return path


@pytest.mark.parametrize("without", [None, "reconstruction_rss"])
def test_a_fastmri_file_loads_and_reconstructs(tmp_path, without):
    path = fastmri(tmp_path / "file.h5", **({without: None} if without else {}))
    found = lk.data.scan(path)  # the middle slice; the other is empty
    assert found.kspace.shape == (8, 64, 64) and found.kspace.dtype == torch.complex64
    with h5py.File(path) as file:
        fully = fft(torch.from_numpy(file["kspace"][1]))
    assert fully.shape == (8, 128, 72)
    rss = torch.from_numpy(h5py.File(fastmri(tmp_path / "again.h5"))["reconstruction_rss"][1])[None]
    shown = lk.mri.magnitude(found.target) / lk.mri.magnitude(found.target).norm()
    lit = found.mask * (rss > 0.1 * rss.max())
    assert float(((shown - rss / rss.norm()) * lit).norm()) < 0.05
    op, y = found.undersampled(sampling_mask((64, 64), 4))
    rough = lk.mri.scores(lk.mri.zero_filled(op, y), found.target)["psnr"]
    assert lk.mri.scores(lk.mri.total_variation(op, y), found.target)["psnr"] > rough + 3
    with pytest.raises(lk.Error, match="only zeros"):
        lk.data.scan(path, index=0)
    with pytest.raises(lk.Error, match="has the slices 0 to 1, got index=2"):
        lk.data.scan(path, index=2)


def test_a_fastmri_file_that_was_undersampled(tmp_path):
    lines = sampling_mask((128, 72), 3, calibration=20)[0].numpy()
    path = fastmri(tmp_path / "full.h5")
    with h5py.File(path) as file:
        kspace = file["kspace"][:] * lines
    path = fastmri(tmp_path / "test.h5", kspace=kspace.astype(np.complex64), mask=lines)
    found = lk.data.scan(path)
    assert found.target is None
    assert found.kspace.shape == (8, 64, 72)  # cut along the lines, not across them
    assert torch.equal(found.sampling, torch.from_numpy(lines).expand(64, 72))


def test_what_a_fastmri_file_claims_beside_k_space_is_not_read_unseen(tmp_path):
    """Of a few kilobytes, HDF5 makes as many zeros as the file says: here thousands of them times
    the memory of this machine."""
    path = fastmri(tmp_path / "claims.h5", reconstruction_rss=None, ismrmrd_header=None)
    with h5py.File(path, "a") as file:
        file.create_dataset("ismrmrd_header", shape=(10**15,), dtype="u1", chunks=(2**20,))
    assert lk.data.scan(path).kspace.shape == (8, 128, 72)  # as if it had no header
    with h5py.File(path, "a") as file:
        file.create_dataset("mask", shape=(10**15,), dtype="u1", chunks=(2**20,))
    with pytest.raises(lk.FileError, match="has a mask of 1000000000000000 lines"):
        lk.data.scan(path)


def write(path: Path, content) -> None:
    content(path) if callable(content) else path.write_bytes(content)


K = np.ones((4, 32, 32), np.complex64)
BAD_FILES = {
    "single.h5": (lambda p: fastmri(p, kspace=K), "single-coil"),
    "no_kspace.h5": (lambda p: fastmri(p, kspace=None), "no data set 'kspace' (it has ismrmrd"),
    "nan.h5": (lambda p: fastmri(p, kspace=K[None] * np.nan), "NaN or infinite"),
    "real.h5": (lambda p: fastmri(p, kspace=np.ones((1, 4, 32, 32))), "expected complex k-space"),
    "five.h5": (lambda p: fastmri(p, kspace=K[None, None]), "shape (1, 1, 4, 32, 32)"),
    "mask.h5": (lambda p: fastmri(p, mask=np.ones(5)), "a mask of 5 lines for k-space of 72"),
    "huge.h5": (
        lambda p: h5py.File(p, "w").create_dataset("kspace", (1, 4, 10**5, 10**5), "c8"),
        "is 100000 × 100000",
    ),
    "text.h5": (b"this is no HDF5", "not a complete HDF5 file"),
    "cut.h5": (lambda p: p.write_bytes(fastmri(p).read_bytes()[:5000]), "not a complete HDF5 file"),
    "missing.h5": (lambda p: None, "There is no file"),
    "single.npy": (lambda p: np.save(p, K[0]), "single-coil"),
    "nan.npy": (lambda p: np.save(p, K + np.nan), "NaN or infinite"),
    "zeros.npy": (lambda p: np.save(p, 0 * K), "only zeros"),
    "five.npy": (lambda p: np.save(p, K[None, None]), "expected complex k-space"),
    "object.npy": (lambda p: np.save(p, np.array([{}]), allow_pickle=True), "plain numbers"),
    "coil.npy": (lambda p: np.save(p, K[:1]), "of two coils or more"),
    "lines.h5": (lambda p: fastmri(p, mask=np.full(72, 0.5)), "does not say 0 or 1 of each line"),
    "negative.npy": (lambda p: np.save(p, -np.ones((32, 32))), "negative values"),
    "line.npy": (lambda p: np.save(p, np.ones(32)), "real magnitudes"),
    "text.nii": (b"this is no NIfTI", "not a complete NIfTI file"),
    "text.nii.gz": (b"this is no NIfTI", "not a complete NIfTI file"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_files_get_one_clear_sentence(tmp_path, name):
    content, part = BAD_FILES[name]
    write(tmp_path / name, content)
    with pytest.raises(lk.Error) as caught:
        lk.data.scan(tmp_path / name)
    assert part in str(caught.value) and name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_scale_of_a_file_does_not_matter(tmp_path, scan):
    np.save(tmp_path / "k.npy", scan.kspace.numpy())
    np.save(
        tmp_path / "large.npy", (1e200 * scan.kspace.numpy().astype(complex))
    )  # squares are inf
    np.save(tmp_path / "small.npy", 1e-30 * scan.kspace.numpy())  # and these 0
    want = lk.data.scan(tmp_path / "k.npy")
    for name in ("large.npy", "small.npy"):
        found = lk.data.scan(tmp_path / name)
        torch.testing.assert_close(found.kspace, want.kspace, atol=1e-4, rtol=1e-3)
    with pytest.raises(lk.Error, match="has no slices to choose from"):
        lk.data.scan(tmp_path / "k.npy", index=0)


def test_magnitudes_are_measured_by_simulated_coils(tmp_path):
    plane = (1000 * lk.mri.magnitude(lk.data.scan("slice-1", size=48).target))[0].numpy()
    volume = np.stack([np.zeros_like(plane), plane, np.zeros_like(plane)])
    np.save(tmp_path / "plane.npy", plane)
    np.save(tmp_path / "volume.npy", volume)
    seen = np.rot90(volume.transpose(1, 2, 0), -1)  # as a scanner stores it: x to the right
    nibabel.save(nibabel.Nifti1Image(seen, np.eye(4)), tmp_path / "volume.nii.gz")
    flipped = nibabel.Nifti1Image(seen[::-1], np.diag([-1, 1, 1, 1]))
    nibabel.save(flipped, tmp_path / "flipped.nii")
    want = lk.data.scan("slice-1", size=48)
    for name in ("plane.npy", "volume.npy", "volume.nii.gz", "flipped.nii"):
        found = lk.data.scan(tmp_path / name, coils=5)
        assert found.kspace.shape == (5, 48, 48)
        assert lk.mri.scores(found.target, want.target)["psnr"] > 60, name


# --- methods and scores -------------------------------------------------------------------------


def test_baselines_beat_zero_filling_and_repeat(scan, problem):
    op, y = problem
    before = np.random.get_state()[1].copy()
    found = {name: method(op, y) for name, method in lk.mri.METHODS.items()}
    psnr = {k: lk.mri.scores(x, scan.target)["psnr"] for k, x in found.items()}
    for name in ("cg", "l1", "tv"):
        assert psnr[name] > psnr["zero-filled"] + 3, psnr
        assert found[name].dtype == torch.float32 and found[name].shape == (2, 64, 64)
        assert torch.equal(found[name], lk.mri.METHODS[name](op, y))
    assert np.array_equal(np.random.get_state()[1], before)


def test_scores_are_those_of_fastmri():
    target, image = (
        torch.randn(2, 32, 32, generator=torch.Generator().manual_seed(s)) for s in (0, 1)
    )
    image = target + 0.1 * image
    gt, pred = (np.hypot(*x.double().numpy()) for x in (target, image))
    found = lk.mri.scores(image, target)
    assert found["nmse"] == pytest.approx(np.linalg.norm(gt - pred) ** 2 / np.linalg.norm(gt) ** 2)
    error = np.mean((gt - pred) ** 2)
    assert found["psnr"] == pytest.approx(10 * np.log10(gt.max() ** 2 / error), abs=1e-4)
    want = structural_similarity(gt, pred, data_range=gt.max())
    assert found["ssim"] == pytest.approx(want, abs=1e-6)
    turned = torch.complex(*image) * np.exp(1j)
    turned = torch.stack([turned.real, turned.imag]).float()
    assert lk.mri.scores(turned, target)["psnr"] == pytest.approx(found["psnr"], abs=1e-3)


@pytest.mark.parametrize("name", ["oes", "deep-decoder"])
def test_a_network_fits_and_is_only_watched(scan, problem, name):
    op, y = problem
    small = {"oes": dict(levels=3, down=16, up=16), "deep-decoder": dict(levels=3, width=32)}[name]
    prior = lk.Prior(name, 64, out_channels=2, sigmoid=False, **small)
    watch = lk.mri.Watch(lambda image: lk.mri.psnr(image * op.support, scan.target))
    fit = lk.fit(prior, op, y, steps=100, every=20, callback=watch)
    assert torch.equal(fit.image, lk.fit(prior, op, y, steps=100, every=20).image)
    assert watch.steps == [20, 40, 60, 80, 100] and watch.values[-1] > watch.values[0] + 2
    best = lk.mri.psnr(watch.best * op.support, scan.target)
    assert best == pytest.approx(max(watch.values), abs=1e-4)


def test_samples_set_aside_rank_pictures_as_the_target_does(scan, problem):
    op, y = problem
    kept, less, score = lk.mri.hold_out(op, y, share=0.2, seed=3)
    aside = op.sampling - kept.sampling
    assert aside.unique().tolist() == [0, 1] and not bool((less * aside).any())
    assert float(aside.sum() / op.sampling.sum()) == pytest.approx(0.2, abs=0.03)
    assert torch.equal(less + y * aside, y)
    ranked = [score(method(kept, less)) for method in (lk.mri.zero_filled, lk.mri.total_variation)]
    assert ranked[0] + 3 < ranked[1] < score(scan.target)


def test_a_scan_without_target_is_judged_by_samples_set_aside(scan):
    lines = sampling_mask((64, 64), 4, calibration=12)
    op, y, score = lk.mri.judged(scan, lines)
    assert torch.equal(op.sampling, lines)
    assert score(scan.target / 2) == pytest.approx(lk.mri.psnr(scan.target / 2, scan.target))
    found = lk.data.scan(scan.kspace, sampling=lines, maps=scan.maps)
    op, y, score = lk.mri.judged(found)
    assert 0.85 < float(op.sampling.sum() / lines.sum()) < 0.95
    assert score(lk.mri.cg_sense(op, y)) > score(lk.mri.zero_filled(op, y))


def test_a_large_scan_fits_into_memory():
    """The peak is of that program alone; getrusage would begin with that of the one before."""
    code = """
import pathlib, lipkit as lk
scan = lk.data.scan(lk.data.image("phantom", size=320, gray=True), coils=15)
op, y = scan.undersampled(lk.physics.sampling_mask((320, 320)))
lk.mri.l1_wavelet(op, y, iterations=2)
prior = lk.Prior("dip", 320, out_channels=2, sigmoid=False)
lk.fit(prior, op, y, steps=1, progress=False)
lines = pathlib.Path("/proc/self/status").read_text().splitlines()
print(next(line.split()[1] for line in lines if line.startswith("VmHWM")))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 0.2 * 2**30 < 1024 * int(done.stdout) < 4 * 2**30


# --- the command --------------------------------------------------------------------------------


def lipkit(capsys, *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as end:
        main(["mri", *(str(a) for a in arguments)])
    out, err = capsys.readouterr()
    return end.value.code, out, err


@pytest.fixture
def folder(tmp_path, monkeypatch, scan):
    monkeypatch.chdir(tmp_path)
    np.save("k.npy", scan.kspace.numpy())
    np.save("maps.npy", scan.maps.numpy())
    np.save("other.npy", scan.maps.numpy()[:, :60])
    np.save("lines.npy", sampling_mask((64, 64), 4)[0].numpy())
    np.save("under.npy", (scan.kspace * sampling_mask((64, 64), 3, calibration=16)).numpy())
    np.save("nan.npy", np.nan * scan.kspace.numpy())
    np.save("words.npy", np.array(["one", "two"]))
    Path("text.h5").write_text("no HDF5")
    Path("text.npy").write_text("no numbers")
    Path("cut.h5").write_bytes(fastmri(tmp_path / "file.h5").read_bytes()[:9000])
    small = dict(levels=2, down=8, up=8)
    pictures, complex_ = (
        lk.Prior("oes", 64, 1, **small, **made)
        for made in ({}, dict(out_channels=2, sigmoid=False))
    )
    for name, prior in (("rgb.ticket", pictures), ("mri.ticket", complex_)):
        lk.Ticket(lk.Mask.random(prior.net, 0.5), prior.recipe).save(name)
    fastmri(tmp_path / "file.h5")
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("k.npy", "o.npy", "--acceleration", 4, "--method", "cg", "--maps", "maps.npy"), 4),
        (("file.h5", "o.nii.gz", "--sampling", "lines.npy", "--method", "l1"), 4),
        (("slice-2", "o.png", "--size", 48, "--method", "tv"), 1),
        (("under.npy", "o.png", "--method", "zero-filled"), 3),
        (("k.npy", "o.npy", "--maps", "maps.npy", "--method", "ticket", "--ticket", "mri.ticket",
          "--steps", 2, "--device", "cpu", "--acceleration", 2, "--pattern", "random"), 2),
    ],
)  # fmt: skip
def test_the_command_writes_a_picture_and_says_how_good_it_is(capsys, folder, arguments, told):
    before = set(os.listdir(folder))
    code, out, err = lipkit(capsys, *arguments, "--json")
    assert code == 0, err
    report = json.loads(out)
    assert report["acceleration"] == pytest.approx(told, rel=0.02) and report["coils"] == 8
    assert ("psnr" in report) == (arguments[0] != "under.npy")
    (written,) = set(os.listdir(folder)) - before
    assert written == arguments[1] == report["out"]
    if written == "o.npy":
        image = np.load(written)
        assert image.dtype == np.complex64 and image.shape == (64, 64)
    else:
        assert lk.data.scan(folder / written).kspace.shape[1:] == tuple(report["size"])


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("nan.npy", "o.png"), "nan.npy holds NaN"),
        (("none.npy", "o.png"), "no file 'none.npy'"),
        (("text.h5", "o.png"), "text.h5 is not a complete HDF5 file"),
        (("cut.h5", "o.nii.gz"), "cut.h5 is not a complete HDF5 file"),
        (("text.npy", "o.png"), "text.npy is not a complete .npy file"),
        (("k.npy", "o.jpg"), "must end in .npy, .nii, .nii.gz or .png"),
        (("k.npy", "o.png.gz"), "must end in"),
        (("k.npy", ".png"), "must end in"),
        (("k.npy", "none/o.png"), "no folder 'none'"),
        (("k.npy", "."), "must end in"),
        (("k.npy", "k.npy"), "would overwrite an input"),
        (("k.npy", "o.png", "--maps", "other.npy"), "coil maps have shape (8, 60, 64)"),
        (("k.npy", "o.png", "--maps", "none.npy"), "no file 'none.npy'"),
        (("k.npy", "o.png", "--sampling", "words.npy"), "words.npy holds <U3; expected numbers"),
        (("k.npy", "o.png", "--seed", 2**70), "not in the range"),
        (("k.npy", "o.png", "--acceleration", 1000), "leaves none of 64 lines"),
        (("k.npy", "o.png", "--sampling", "k.npy"), "sampling must be of the coil maps' size"),
        (("k.npy", "o.png", "--sampling", "lines.npy", "--acceleration", 4), "--sampling says"),
        (("under.npy", "o.png", "--acceleration", 4), "undersampled already: 33 %"),
        (("k.npy", "o.png", "--pattern", "random"), "--pattern is for --acceleration"),
        (("k.npy", "o.png", "--acceleration", 0.5), "0.5 is not in the range"),
        (("k.npy", "o.png", "--method", "ticket"), "belong together"),
        (("k.npy", "o.png", "--method", "ticket", "--ticket", "rgb.ticket"), "complex pictures"),
        (
            ("k.npy", "o.png", "--method", "ticket", "--ticket", "text.npy"),
            "text.npy is no file of",
        ),
        (("file.h5", "o.png", "--slice", 2), "has the slices 0 to 1"),
    ],
)
def test_the_command_refuses_with_one_line_and_writes_nothing(capsys, folder, arguments, part):
    before = set(os.listdir(folder))
    code, out, err = lipkit(capsys, *arguments)
    assert code == 2 and out == ""
    assert part in err and err.startswith("lipkit: error: ") and err.count("\n") == 1
    assert set(os.listdir(folder)) == before


@pytest.mark.parametrize("name", ["o.npy", "o.nii", "o.png"])
def test_a_full_disk_is_one_line_and_leaves_nothing(capsys, folder, monkeypatch, name):
    before = set(os.listdir(folder))

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    monkeypatch.setattr(os, "replace", full)
    code, out, err = lipkit(capsys, "k.npy", name, "--maps", "maps.npy", "--method", "cg")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert f"{name} cannot be written (No space left on device)" in err
    assert set(os.listdir(folder)) == before


def test_what_it_writes_as_nifti_it_reads_the_same_way_up(capsys, folder, scan):
    for name in ("o.nii", "o.png"):
        assert lipkit(capsys, "slice-1", name, "--size", 64, "--method", "zero-filled")[0] == 0
    pair = [lk.mri.magnitude(lk.data.scan(folder / n).target) for n in ("o.nii", "o.png")]
    assert lk.metrics.psnr(*pair) > 40
    assert lk.metrics.psnr(pair[0], lk.mri.magnitude(scan.target)) > 30
