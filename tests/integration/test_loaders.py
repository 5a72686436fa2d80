# SPDX-License-Identifier: Apache-2.0
"""Use 3: what people load models with, loads them from the mount."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.hub import HubRepo
from tests.support.repos import noise

gguf = pytest.importorskip("gguf")
numpy = pytest.importorskip("numpy")
safetensors = pytest.importorskip("safetensors")
safetensors_numpy = pytest.importorskip("safetensors.numpy")

WAYS = ["default", "nopassthrough"]


@pytest.fixture(params=WAYS)
def at(request, mount, current_cache):
    return mount(current_cache, *([] if request.param == "default" else [request.param]))


def loaded(data: bytes) -> dict:
    return safetensors_numpy.load(data)


def same(expected: dict, found: dict) -> None:
    assert expected.keys() == found.keys()
    for name in expected:
        assert numpy.array_equal(expected[name], found[name]), name


def test_safetensors_by_mmap_and_by_read(at, hub_repos):
    repo = hub_repos["org/checkpoints"]
    content = repo.files()["sd_xl.safetensors"].content
    expected = loaded(content.read(0, content.size))
    path = at.repo("org/checkpoints") / "sd_xl.safetensors"
    same(expected, safetensors_numpy.load_file(path))
    same(expected, loaded(path.read_bytes()))
    with safetensors.safe_open(path, framework="numpy") as file:
        name = "layer.5.weight"
        assert numpy.array_equal(file.get_slice(name)[10:20, 5:300], expected[name][10:20, 5:300])


def test_shards_by_their_index(at, hub_repos):
    base = at.repo("org/tiny")
    index = json.loads((base / "model.safetensors.index.json").read_text())["weight_map"]
    for name, shard in index.items():
        with safetensors.safe_open(base / shard, framework="numpy") as file:
            stem = f"layer.{int(name.split('.')[1])}.weight"
            assert stem in file.keys()
            assert numpy.isfinite(file.get_tensor(stem)).all()


def test_fp8(at, hub_repos):
    """numpy has no such type; the header and the bytes must be right."""
    content = hub_repos["org/checkpoints"].files()["sd_fp8.safetensors"].content
    path = at.repo("org/checkpoints") / "sd_fp8.safetensors"
    with safetensors.safe_open(path, framework="numpy") as file:
        assert file.get_slice("layer.weight").get_dtype() == "F8_E4M3"
        assert file.get_slice("layer.weight").get_shape() == [256, 512]
        assert file.get_tensor("layer.weight_scale")[0] == 0.5
    assert path.read_bytes() == content.read(0, content.size)


def test_a_pipeline_of_diffusers(at, hub_repos):
    """Each part that `model_index.json` names is loaded from its own folder."""
    base, files = at.repo("org/pipeline"), hub_repos["org/pipeline"].files()
    parts = [name for name, value in json.loads((base / "model_index.json").read_text()).items() if isinstance(value, list)]
    assert sorted(parts) == ["scheduler", "text_encoder", "unet", "vae"]
    for part in ("text_encoder", "unet", "vae"):
        assert json.loads((base / part / "config.json").read_text()) == {"part": part}
        name = f"{part}/diffusion_pytorch_model.safetensors"
        content = files[name].content
        same(loaded(content.read(0, content.size)), safetensors_numpy.load_file(base / name))


def test_numpy_by_mmap(at, hub_repos):
    array = numpy.load(at.repo("org/checkpoints") / "array.npy", mmap_mode="r")
    assert array.tobytes() == noise("npy", 1 << 20)


@pytest.mark.parametrize("way", WAYS)
def test_gguf(current, hub, mount, fresh_cache, tmp_path, way):
    path = tmp_path / "made.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny")
    tensors = {f"blk.{i}.weight": numpy.arange(4096 * (i + 1), dtype=numpy.float32) for i in range(4)}
    for name, tensor in tensors.items():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    repo = HubRepo("org/gguf")
    repo.commit({"tiny.gguf": path.read_bytes()})
    hub.add(repo)
    current.download("org/gguf", cache_dir=fresh_cache)
    at = mount(fresh_cache, *([] if way == "default" else [way]))
    reader = gguf.GGUFReader(at.repo("org/gguf") / "tiny.gguf")
    assert {tensor.name for tensor in reader.tensors} == set(tensors)
    for tensor in reader.tensors:
        assert numpy.array_equal(tensor.data, tensors[tensor.name])
    # The reader keeps the file mapped; let go of it before the mount is taken away.
    del reader, tensor


LOAD = """
import hashlib, sys
from safetensors import safe_open
digest = hashlib.sha256()
names = None
with safe_open(sys.argv[1], framework="numpy") as file:
    names = sorted(file.keys())
    order = names[int(sys.argv[2]) % len(names):] + names[: int(sys.argv[2]) % len(names)]
    tensors = {name: file.get_tensor(name).tobytes() for name in order}
for name in names:
    digest.update(tensors[name])
print(digest.hexdigest())
"""


@pytest.mark.concurrency
def test_one_model_in_eight_processes_at_once(at, hub_repos):
    content = hub_repos["org/checkpoints"].files()["sd_xl.safetensors"].content
    path = at.repo("org/checkpoints") / "sd_xl.safetensors"
    running = [
        subprocess.Popen([sys.executable, "-c", LOAD, path, str(index)], stdout=subprocess.PIPE, text=True)
        for index in range(8)
    ]
    answers = {process.communicate()[0].strip() for process in running}
    expected = loaded(content.read(0, content.size))
    import hashlib

    digest = hashlib.sha256(b"".join(expected[name].tobytes() for name in sorted(expected)))
    assert answers == {digest.hexdigest()}
    assert all(process.returncode == 0 for process in running)
