#!/usr/bin/env python3
"""Makes the models and recordings in this folder: python3 make.py (needs numpy, onnx, onnxruntime and opencv).

The models are networks of our own, a pooling and a 1x1 convolution per stride with random weights, that have the inputs
and outputs of SCRFD, YuNet and UltraFace exports. The recordings hold what they put out for a synthetic picture and the
faces that the reference decoders, written down here in numpy after the published ones, make of it.
"""
import json

import cv2
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

onnxruntime.set_default_logger_severity(3)
WIDTH, HEIGHT = 96, 64


def picture():
    """The synthetic picture, as the tests paint it too: [height, width, 3], RGB."""
    y, x, c = np.meshgrid(np.arange(HEIGHT), np.arange(WIDTH), np.arange(3), indexing="ij")
    return ((x * 7 + y * 13 + c * 29 + (x // 12) * (y // 10) * 31) % 256).astype(np.uint8)


class Net:
    def __init__(self, seed):
        self.nodes, self.weights, self.count = [], [], 0
        self.random = np.random.default_rng(seed)

    def weight(self, values):
        self.count += 1
        self.weights.append(numpy_helper.from_array(np.asarray(values), f"w{self.count}"))
        return f"w{self.count}"

    def node(self, op, inputs, out=None, **attributes):
        self.count += 1
        out = out or f"v{self.count}"
        self.nodes.append(helper.make_node(op, inputs, [out], **attributes))
        return out

    def conv(self, x, channels, spread, bias):
        w = self.random.normal(0, spread, (channels, 3, 1, 1)).astype(np.float32)
        b = (self.random.normal(0, 0.2, channels) + bias).astype(np.float32)
        return self.node("Conv", [x, self.weight(w), self.weight(b)], kernel_shape=[1, 1], strides=[1, 1])

    def rows(self, x, numbers, out, rank2=False):
        """[N, A * numbers, h, w] to [N, h * w * A, numbers], or interleaved as a rank-2 export does."""
        x = self.node("Transpose", [x], perm=[2, 3, 0, 1] if rank2 else [0, 2, 3, 1])
        shape = [-1, numbers] if rank2 else [0, -1, numbers]
        self.node("Reshape", [x, self.weight(np.array(shape, np.int64))], out)

    def save(self, path, input_dims, outputs, weights_are_inputs=False):
        value = lambda name, dims: helper.make_tensor_value_info(name, TensorProto.FLOAT, dims)
        inputs = [value("input", input_dims)]
        if weights_are_inputs:
            inputs += [helper.make_tensor_value_info(w.name, w.data_type, w.dims) for w in self.weights]
        graph = helper.make_graph(self.nodes, "tiny", inputs, [value(n, d) for n, d in outputs], self.weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 12)], ir_version=7)
        onnx.checker.check_model(model)
        onnx.save(model, path)


def scrfd(path, kind="sound"):
    """kind: sound; rank2 (a batch comes out interleaved); leak (picture 0 shows in all of a batch)."""
    net, outputs, rank2 = Net(7), {}, kind == "rank2"
    for level, stride in enumerate((8, 16, 32)):
        x = net.node("AveragePool", ["input"], kernel_shape=[stride] * 2, strides=[stride] * 2)
        if kind == "leak":
            first = [net.weight(np.array([v], np.int64)) for v in (0, 1, 0)]
            x = net.node("Add", [x, net.node("Slice", [x, *first])])
        score = net.node("Sigmoid", [net.conv(x, 2, 3.0, -1.0)])
        sides = net.node("Abs", [net.conv(x, 8, 0.5, 1.0)])
        points = net.conv(x, 20, 0.5, 0.0)
        for at, (part, numbers) in enumerate(((score, 1), (sides, 4), (points, 10))):
            name = f"out{at * 3 + level}"
            net.rows(part, numbers, name, rank2)
            outputs[at * 3 + level] = (name, [f"rows{name}", numbers] if rank2 else ["batch", f"rows{name}", numbers])
    net.save(path, ["batch", 3, "height", "width"], [outputs[i] for i in range(9)])


def yunet(path):
    net, outputs = Net(12), {}
    for stride in (8, 16, 32):
        x = net.node("AveragePool", ["input"], kernel_shape=[stride] * 2, strides=[stride] * 2)
        x = net.node("Mul", [x, net.weight(np.float32(1 / 128))])
        parts = (("cls", net.node("Sigmoid", [net.conv(x, 1, 2.0, 0.0)]), 1),
                 ("obj", net.node("Sigmoid", [net.conv(x, 1, 2.0, 0.0)]), 1),
                 ("bbox", net.conv(x, 4, 0.3, 1.0), 4), ("kps", net.conv(x, 10, 0.3, 0.0), 10))
        for kind, part, numbers in parts:
            net.rows(part, numbers, f"{kind}_{stride}")
            outputs[kind, stride] = (f"{kind}_{stride}", ["batch", "rows", numbers])
    order = [outputs[k, s] for k in ("cls", "obj", "bbox", "kps") for s in (8, 16, 32)]
    net.save(path, ["batch", 3, "height", "width"], order)


def ultraface(path):
    """Of a fixed size, with its weights listed as inputs, like the published exports."""
    net, scores, boxes = Net(8), [], []
    for stride in (8, 16):
        x = net.node("AveragePool", ["input"], kernel_shape=[stride] * 2, strides=[stride] * 2)
        net.rows(net.conv(x, 2, 20.0, 0.0), 2, f"s{stride}")
        net.rows(net.node("Sigmoid", [net.conv(x, 4, 1.0, 0.0)]), 4, f"b{stride}")
        scores.append(f"s{stride}"); boxes.append(f"b{stride}")
    net.node("Softmax", [net.node("Concat", scores, axis=1)], "scores", axis=2)
    corners = net.node("Concat", boxes, axis=1)
    cut = lambda a, b: net.node("Slice", [corners, *(net.weight(np.array([v], np.int64)) for v in (a, b, 2))])
    size = net.node("Mul", [cut(2, 4), net.weight(np.float32(0.5))])
    net.node("Concat", [cut(0, 2), net.node("Add", [cut(0, 2), size])], "boxes", axis=2)
    net.save(path, [1, 3, 48, 64], [("scores", [1, 60, 2]), ("boxes", [1, 60, 4])], weights_are_inputs=True)


def nms(faces, limit, inclusive):
    """insightface's rule with inclusive = 1, the plain one with 0."""
    faces, kept = sorted(faces, key=lambda f: -f["score"]), []
    for face in faces:
        a = face["bbox"]
        for better in kept:
            b = better["bbox"]
            w = max(0.0, min(a[2], b[2]) - max(a[0], b[0]) + inclusive)
            h = max(0.0, min(a[3], b[3]) - max(a[1], b[1]) + inclusive)
            area = lambda r: (r[2] - r[0] + inclusive) * (r[3] - r[1] + inclusive)
            if w * h / (area(a) + area(b) - w * h) > limit:
                break
        else:
            kept.append(face)
    return kept


def clip(faces, width, height):
    for face in faces:
        face["bbox"] = [float(min(max(v, 0), (width, height)[i % 2])) for i, v in enumerate(face["bbox"])]
    return [f for f in faces if f["bbox"][0] < f["bbox"][2] and f["bbox"][1] < f["bbox"][3]]


def decode_scrfd(out, width, height, scale, score_min):
    faces = []
    for level, stride in enumerate((8, 16, 32)):
        h, w = height // stride, width // stride
        centres = np.stack(np.mgrid[:h, :w][::-1], axis=-1).astype(np.float32)
        centres = np.repeat((centres * stride).reshape(-1, 2), 2, axis=0)
        scores, sides = out[level].reshape(-1), out[level + 3].reshape(-1, 4) * stride
        points = out[level + 6].reshape(-1, 5, 2) * stride
        for k in np.nonzero(scores >= score_min)[0]:
            bbox = np.concatenate([centres[k] - sides[k, :2], centres[k] + sides[k, 2:]]) / scale
            faces.append({"score": float(scores[k]), "bbox": bbox.tolist(),
                          "landmarks": ((points[k] + centres[k]) / scale).tolist()})
    return nms(faces, 0.4, 1)


def decode_yunet(out, width, height, scale, score_min):
    faces = []
    for level, stride in enumerate((8, 16, 32)):
        cols, rows = width // stride, height // stride
        cls, obj, bbox, kps = (out[level + 3 * kind][0] for kind in range(4))
        for r in range(rows):
            for c in range(cols):
                k = r * cols + c
                score = float(np.sqrt(np.clip(cls[k, 0], 0, 1) * np.clip(obj[k, 0], 0, 1)))
                if score < score_min:
                    continue
                cx, cy = (c + bbox[k, 0]) * stride, (r + bbox[k, 1]) * stride
                w, h = np.exp(bbox[k, 2]) * stride, np.exp(bbox[k, 3]) * stride
                box = np.array([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2]) / scale
                points = [[float((kps[k, 2 * n] + c) * stride / scale), float((kps[k, 2 * n + 1] + r) * stride / scale)]
                          for n in range(5)]
                faces.append({"score": score, "bbox": box.tolist(), "landmarks": points})
    return nms(faces, 0.4, 0)


def decode_ultraface(out, width, height, scale, score_min):
    scores, boxes = out[0][0], out[1][0]
    faces = [{"score": float(s[1]), "bbox": (b * [WIDTH, HEIGHT, WIDTH, HEIGHT]).tolist(), "landmarks": None}
             for s, b in zip(scores, boxes) if s[1] >= score_min]
    return nms(faces, 0.3, 0)


def record(name, tensor, decode, score_min):
    session = onnxruntime.InferenceSession(f"tiny_{name}.onnx", providers=["CPUExecutionProvider"])
    outputs = [o.round(4) for o in session.run(None, {"input": tensor})]
    height, width = tensor.shape[2:]
    raw = decode(outputs, width, height, 1.0, score_min)
    halved = decode(outputs, width, height, 0.5, score_min)
    assert len(raw) >= 4, (name, len(raw))
    rounded = lambda faces: json.loads(json.dumps(faces), parse_float=lambda v: round(float(v), 4))
    recording = {"input": [width, height], "score_min": score_min,
                 "outputs": [{"shape": o.shape, "data": [float(f"{v:.4f}") for v in o.ravel()]} for o in outputs],
                 "faces": rounded(raw), "faces_half_scale": rounded(halved),
                 "answer": rounded(clip(json.loads(json.dumps(raw)), WIDTH, HEIGHT))}
    with open(f"{name}.json", "w") as file:
        json.dump(recording, file, separators=(",", ":"))
    print(name, len(raw), "faces")


def resize():
    """What OpenCV makes of the picture's top left corner at other sizes."""
    corner, sizes = picture()[:31, :47], [[29, 19], [46, 7], [5, 40], [1, 1]]
    copies = [{"size": size, "rgb": cv2.resize(corner, size, interpolation=cv2.INTER_LINEAR).ravel().tolist()}
              for size in sizes]
    narrow = cv2.resize(np.ascontiguousarray(corner[:, :1]), [3, 5], interpolation=cv2.INTER_LINEAR)
    with open("resize.json", "w") as file:
        json.dump({"copies": copies, "one_column": narrow.ravel().tolist()}, file, separators=(",", ":"))


def main():
    resize()
    scrfd("tiny_scrfd.onnx"); scrfd("tiny_scrfd_rank2.onnx", "rank2"); scrfd("tiny_scrfd_leak.onnx", "leak")
    yunet("tiny_yunet.onnx"); ultraface("tiny_ultraface.onnx")
    rgb = picture().astype(np.float32)
    planes = lambda image: np.ascontiguousarray(image.transpose(2, 0, 1)[None])
    record("scrfd", planes((rgb - 127.5) / 128), decode_scrfd, 0.5)
    record("yunet", planes(rgb[:, :, ::-1]), decode_yunet, 0.6)
    small = picture()[:48, :64].astype(np.float32)
    record("ultraface", planes((small - 127) / 128), decode_ultraface, 0.5)


if __name__ == "__main__":
    main()
