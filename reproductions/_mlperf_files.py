"""Reference convergence points of MLPerf (github.com/mlcommons/logging, Apache-2.0): their files, by round."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from rightbatch.bundled.data import DataFile, find

FOLDER = "measurements/mlperf_rcp"
ADDRESS = "https://raw.githubusercontent.com/mlcommons/logging/master/mlperf_logging/rcp_checker"

SHA256: Mapping[str, Mapping[str, str]] = {
    "hpc_1.0.0": {
        "cosmoflow": "30e30d4c50bb2334374c3c08be23cc6f875abfaf834d418f0782b77c0954ae43",
        "deepcam": "15140b6c8bb6132e80155da51164dd83f04e9873136c719e3ca1de9a69f7f2cc",
        "oc20": "1fdf6d53bc6118f1e87ab876c85d9efa991d6ca4acdb5822151c3669dd94ccce",
    },
    "hpc_2.0.0": {
        "cosmoflow": "95985c866868f59cce53e814d2f92b99d9718783a378b6c0245994cc55354138",
        "deepcam": "abaddbbb70d2885fc6804276efac3f8d621acd46c240989b1d46079485d40d37",
        "oc20": "1fdf6d53bc6118f1e87ab876c85d9efa991d6ca4acdb5822151c3669dd94ccce",
    },
    "hpc_3.0.0": {
        "cosmoflow": "95985c866868f59cce53e814d2f92b99d9718783a378b6c0245994cc55354138",
        "deepcam": "abaddbbb70d2885fc6804276efac3f8d621acd46c240989b1d46079485d40d37",
        "oc20": "1fdf6d53bc6118f1e87ab876c85d9efa991d6ca4acdb5822151c3669dd94ccce",
        "openfold": "b67d4b5c5a66d2fb334246cde68a16e28b9252e85833a95478317a37e4e5ebfb",
    },
    "training_1.0.0": {
        "bert": "574cd485209a147f87561c170937cc4a1e82417dd178ee9991c1db1908354e22",
        "dlrm": "b56b6dc01cc79ad895a7d8d859f6e128f6eac1d9a86c9df624a5bed764f38c83",
        "maskrcnn": "417cf6fe57274544d66f83c35509001e7f1609131c85910c85b7c1d062e8c511",
        "resnet": "57f622c89b1a46f5fa994c28c4ce9066c4cc282d0544a6163dc95a7bcb547f65",
        "rnnt": "6ef2305cc5bc4022ae93ecfaac3be50ccf585dec93e99ab39caf6527aff48ed0",
        "ssd": "18fd0f5b94f01363d4de4640e0713a62250e2914bffa558778e0335f916d7a5e",
        "unet3d": "b085ebb6a9b2ceeab9d0d0cbe82ab4366ee32bcf349d9f8b441c79af2f9bc966",
    },
    "training_1.1.0": {
        "bert": "10ca8089cc7cd41504d6cf27700a7a8896a7a91deffc099e3a7dd186a3d13f0c",
        "dlrm": "c3b83a794417deebd2240e7947bdface59962f7fac9c5e657937258130c5a162",
        "maskrcnn": "77da01b9b41d4c6b65c1da8dcb507ba50b4bf8cfd0cfaf99c56c4665090f68c1",
        "resnet": "4e24d9107217d8eafec96503e427bc2d4ed2c4c8bdab11af7327ee73b9736e7c",
        "rnnt": "5f094418c3008de8b50002bd7bfee29b1309192673c8fa586aaea9f0b604bb2c",
        "ssd": "6171e7197532a78bbf1f8c8605fe7d1af9c398cec0ea9eac9e2725ccbca38f2e",
        "unet3d": "b40b6648bef050457c0a2a8e2229ce2d9a9e71f9ffc4424b1e1c497e395fc112",
    },
    "training_2.0.0": {
        "bert": "499e1fd6b3a710af43d6887b9e97cc2d4d409c3be0cb92c6126afa8459f0a28f",
        "dlrm": "c3b83a794417deebd2240e7947bdface59962f7fac9c5e657937258130c5a162",
        "maskrcnn": "aedd01c100274dc4aa9a9a00fd89f68a1f4e025e2b72244f3145675bf180cd67",
        "resnet": "217d32136f8040585943de7bc6be253faf718fecfab03931bf9060e3a5fad9d4",
        "rnnt": "b1a6d3aaefca327b11ec348f059556b60e9eda414082a4ab12a072a613e1dd6d",
        "ssd": "2ef35eeb3f874e7dbe89152400f4db0cb2d6fea6c1699f840443835d013d1f9d",
        "unet3d": "b40b6648bef050457c0a2a8e2229ce2d9a9e71f9ffc4424b1e1c497e395fc112",
    },
    "training_2.1.0": {
        "bert": "d658f4a2c3958cb07cafc6ef124a693eb2129b941a740c5e66444bbb88518a4a",
        "dlrm": "c3b83a794417deebd2240e7947bdface59962f7fac9c5e657937258130c5a162",
        "maskrcnn": "67a474aab89943d0969bd808f82322f2b1df09be11b236242829419951e6aab3",
        "resnet": "2b21bf22a3ed6d504d2a80f034bbc6610a6cface79b7c599eae56e4e771f582b",
        "rnnt": "b1a6d3aaefca327b11ec348f059556b60e9eda414082a4ab12a072a613e1dd6d",
        "ssd": "1abd5428bb466aff257a4c97dfc52a201c9c50859c9aec5e48beb52fc6a3b819",
        "unet3d": "b40b6648bef050457c0a2a8e2229ce2d9a9e71f9ffc4424b1e1c497e395fc112",
    },
    "training_3.0.0": {
        "bert": "d658f4a2c3958cb07cafc6ef124a693eb2129b941a740c5e66444bbb88518a4a",
        "dlrm_dcnv2": "a5fca27d383aef3cb788e67866437c181b65c567246537ccb8a31ae27027fb80",
        "gpt3": "a84bd4ae0a553e36995edd014e347e509cf18e531503157033a07a8d7b7cbd7c",
        "maskrcnn": "67a474aab89943d0969bd808f82322f2b1df09be11b236242829419951e6aab3",
        "resnet": "2b21bf22a3ed6d504d2a80f034bbc6610a6cface79b7c599eae56e4e771f582b",
        "rnnt": "b1a6d3aaefca327b11ec348f059556b60e9eda414082a4ab12a072a613e1dd6d",
        "ssd": "dc4b55904cd384f85d68903033030b7a573731772a9135c82145dd5ae48db72d",
        "unet3d": "de72c9d4b87a20d1093666c7fc4b61ebc446448eb9838879beaf0513471936f8",
    },
    "training_3.1.0": {
        "bert": "d658f4a2c3958cb07cafc6ef124a693eb2129b941a740c5e66444bbb88518a4a",
        "dlrm_dcnv2": "a5fca27d383aef3cb788e67866437c181b65c567246537ccb8a31ae27027fb80",
        "gpt3": "a84bd4ae0a553e36995edd014e347e509cf18e531503157033a07a8d7b7cbd7c",
        "maskrcnn": "67a474aab89943d0969bd808f82322f2b1df09be11b236242829419951e6aab3",
        "resnet": "2b21bf22a3ed6d504d2a80f034bbc6610a6cface79b7c599eae56e4e771f582b",
        "rnnt": "b1a6d3aaefca327b11ec348f059556b60e9eda414082a4ab12a072a613e1dd6d",
        "ssd": "f59eadf7fcbbdc7b6cb3c3d817f4c733705b6dea956a9bc5716148aa83139bba",
        "stable_diffusion": "6fd14cca5dcb6d5e08a156bb79440e2897e1b7690af95e4e86e86380e9dde9af",
        "unet3d": "5af554aed3d837b643c1134f53942097fc1051742a5ba56d9065bc72458b5fca",
    },
    "training_4.0.0": {
        "bert": "d658f4a2c3958cb07cafc6ef124a693eb2129b941a740c5e66444bbb88518a4a",
        "dlrm_dcnv2": "a5fca27d383aef3cb788e67866437c181b65c567246537ccb8a31ae27027fb80",
        "gnn": "50af1250e47b88c12a1ab882f9b97764b6de0d7cb8b38874ce0c0e8b4cfe600d",
        "gpt3": "a84bd4ae0a553e36995edd014e347e509cf18e531503157033a07a8d7b7cbd7c",
        "llama2_70b_lora": "2127e83f607cdfd0fbeeca1b849fea66b5d1b7e29e830cf33e76683d3af3158a",
        "resnet": "2b21bf22a3ed6d504d2a80f034bbc6610a6cface79b7c599eae56e4e771f582b",
        "ssd": "b8a552f0309c2e789a28a405779fc789ca6af50d6aecde5df346788dd67c42fa",
        "stable_diffusion": "f5a0b12cc00e240565c3f0ffc6d5cda53d8edfec314ab816fd4fdf7cf59f6206",
        "unet3d": "02ed5a3a23330e646a284c857199aa4335b248ed991a099ade504b3bbf90681f",
    },
    "training_4.1.0": {
        "bert": "2da0834b9ac6e902f954a0e02314a3e82ac5f81f900e2aedf7827499e689b464",
        "dlrm_dcnv2": "844bb79113f2bdba8b6991df49b722e82909488a6f751a533f26b894b2d3a01d",
        "gnn": "bbde6f21742531035e2d467fad7610257adcd7674b42302bbb3dda71c54f46e1",
        "gpt3": "70cae2367f448898b3e954a5c0a854d3e37f0e8ea6b58be0223aaf18ca9b342d",
        "llama2_70b_lora": "2862943ba82c1a577019cafb6fc88be399f0836b4db85cff446f0b78cbab1075",
        "ssd": "68566ff2dd6077df83a7f176ee6d4ff787fa6558c319a08d19a29434487a68a8",
        "stable_diffusion": "efa3ab3e38b1939b27146e5295d1b95b723781fea54424fd4d623922bcf80266",
    },
}
"""Of the file of each benchmark."""


def files() -> list[Path]:
    """All files of these rounds, downloaded if need be, and any others that lie beside them, in order of rounds.

    Raises `DataError` where one can neither be found nor downloaded.
    """
    published = [
        find(DataFile(f"{FOLDER}/{round_}/rcps_{name}.json", f"{ADDRESS}/{round_}/rcps_{name}.json", sha256))
        for round_, names in SHA256.items()
        for name, sha256 in names.items()
    ]
    folders = {path.parent.parent for path in published}
    return sorted({path for folder in folders for path in folder.glob("*/rcps_*.json")}, key=lambda p: p.parts[-2:])
