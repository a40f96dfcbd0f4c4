"""Tiny deterministic networks, each with one habit of real ones. 5 classes, 3 x 32 x 32 inputs unless said so."""

import functools

import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

CLASSES = 5
MEAN, STD = (0.45, 0.5, 0.4), (0.2, 0.25, 0.3)

torch.set_num_threads(1)  # these networks are too small to share out; the suite is twice as fast


def images(n=1, channels=3, size=(32, 32), seed=0):
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(n, channels, *[max(1, axis // 4) for axis in size], generator=generator)
    mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[len(size)]
    smooth = functional.interpolate(coarse, size=tuple(size), mode=mode, align_corners=False)
    return (0.7 * smooth + 0.3 * torch.rand(n, channels, *size, generator=generator)).clamp(0, 1)


def seeded(build):
    @functools.wraps(build)
    def make(*args, seed=0, **kwargs):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            net = build(*args, **kwargs)
            for parameter in net.parameters():
                if parameter.ndim > 1:  # torch's own start is so tame that all images give nearly the same scores
                    parameter.data *= 1.8
            for module in net.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.running_mean.normal_(0, 0.3)
                    module.running_var.uniform_(0.5, 2)
        return net.eval()

    return make


class Cnn(nn.Module):
    def __init__(self, channels=3, classes=CLASSES, bias_at_end=True):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 8, 3, stride=2, padding=1)
        self.bn1 = nn.BatchNorm2d(8)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(8, 12, 3, stride=2, padding=1)
        self.bn2 = nn.BatchNorm2d(12)
        self.relu2 = nn.ReLU()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(12, classes, bias=bias_at_end)

    def features(self, x):
        x = self.relu1(self.bn1(self.conv1(x)))
        return self.relu2(self.bn2(self.conv2(x)))

    def forward(self, x):
        return self.fc(self.pool(self.features(x)).flatten(1))


class InPlace(nn.Module):
    def __init__(self, inplace=True):
        super().__init__()
        self.inplace = inplace
        self.conv1 = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.bn1 = nn.BatchNorm2d(8)
        self.relu1 = nn.ReLU(inplace=inplace)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(8)
        self.relu2 = nn.ReLU(inplace=inplace)
        self.fc = nn.Linear(8, CLASSES)

    def forward(self, x):
        x = self.relu1(self.bn1(self.conv1(x)))
        shortcut = 0.5 * x
        x = self.bn2(self.conv2(x))
        if self.inplace:
            x += shortcut
            x *= 1.5
        else:
            x = (x + shortcut) * 1.5
        return self.fc(self.relu2(x).mean((2, 3)))


class ResidualBlock(nn.Module):
    def __init__(self, channels_in, channels_out, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels_out)
        self.relu = nn.ReLU(inplace=True)  # one object, called twice, as in torchvision
        self.down = nn.Conv2d(channels_in, channels_out, 1, stride, bias=False)

    def forward(self, x):
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        out += self.down(x)
        return self.relu(out)


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1)
        self.layer1 = ResidualBlock(8, 8, 1)
        self.layer2 = ResidualBlock(8, 12, 2)
        self.fc = nn.Linear(12, CLASSES)

    def forward(self, x):
        return self.fc(self.layer2(self.layer1(self.stem(x))).mean((2, 3)))


class Attention(nn.Module):
    def __init__(self, dim, heads=2):
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x):
        n, tokens, dim = x.shape
        q, k, v = self.qkv(x).reshape(n, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(q, k, v)
        return self.proj(mixed.transpose(1, 2).reshape(n, tokens, dim))


class Block(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(dim), Attention(dim)
        self.norm2, self.mlp = (
            nn.LayerNorm(dim),
            nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim)),
        )

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Vit(nn.Module):
    def __init__(self, grid=(8, 8), registers=0, class_token=True, dim=16):
        super().__init__()
        self.prefix = registers + class_token
        self.class_token = class_token
        self.patch = nn.Conv2d(3, dim, 4, 4)
        self.prefix_tokens = nn.Parameter(torch.randn(1, self.prefix, dim))
        self.positions = nn.Parameter(0.5 * torch.randn(1, self.prefix + grid[0] * grid[1], dim))
        self.blocks = nn.ModuleList([Block(dim) for _ in range(2)])
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, CLASSES)

    def forward(self, x):
        tokens = self.patch(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.prefix_tokens.expand(len(x), -1, -1), tokens], 1) + self.positions
        for block in self.blocks:
            tokens = block(tokens)
        tokens = self.norm(tokens)
        return self.head(tokens[:, 0] if self.class_token else tokens[:, self.prefix :].mean(1))


class UNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.down1, self.down2 = nn.Conv2d(3, 6, 3, 1, 1), nn.Conv2d(6, 8, 3, 2, 1)
        self.bottom = nn.Conv2d(8, 8, 3, 2, 1)
        self.up = nn.Upsample(scale_factor=2)
        self.up2, self.up1 = nn.Conv2d(16, 6, 3, 1, 1), nn.Conv2d(12, 6, 3, 1, 1)
        self.out = nn.Conv2d(6, CLASSES, 1)

    def forward(self, x):
        one = functional.relu(self.down1(x))
        two = functional.relu(self.down2(one))
        three = functional.relu(self.bottom(two))
        two = functional.relu(self.up2(torch.cat([self.up(three), two], 1)))
        return self.out(functional.relu(self.up1(torch.cat([self.up(two), one], 1))))


class TwoBranches(nn.Module):
    """No module that everything passes through: the two branches meet in the logits."""

    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 6, 3, 2, 1), nn.Conv2d(3, 6, 5, 4, 2)
        self.left_head, self.right_head = nn.Linear(6, CLASSES), nn.Linear(6, CLASSES)

    def branches(self, x):
        return (
            self.left_head(functional.relu(self.left(x)).mean((2, 3))),
            self.right_head(functional.relu(self.right(x)).mean((2, 3))),
        )

    def forward(self, x):
        left, right = self.branches(x)
        return left + right


class TwoOutputs(TwoBranches):
    def forward(self, x):
        return self.branches(x)


class ReluThrice(nn.Module):
    def __init__(self):
        super().__init__()
        self.convs = nn.ModuleList([nn.Conv2d(c, 8, 3, 2, 1) for c in (3, 8, 8)])
        self.relu = nn.ReLU()
        self.fc = nn.Linear(8, CLASSES)

    def forward(self, x):
        for conv in self.convs:
            x = self.relu(conv(x))
        return self.fc(x.mean((2, 3)))


class ChannelsLast(nn.Module):
    def __init__(self, dim=20):
        super().__init__()
        self.patch = nn.Conv2d(3, dim, 4, 4)
        self.norm, self.mlp = nn.LayerNorm(dim), nn.Sequential(nn.Linear(dim, dim), nn.GELU())
        self.fc = nn.Linear(dim, CLASSES)

    def forward(self, x):
        return self.fc(self.mlp(self.norm(self.patch(x).permute(0, 2, 3, 1))).mean((1, 2)))


class DenseLike(nn.Module):
    def __init__(self, inplace=True):
        super().__init__()
        self.inplace = inplace
        self.conv1, self.conv2, self.conv3 = (
            nn.Conv2d(3, 6, 3, 2, 1),
            nn.Conv2d(6, 6, 3, 1, 1),
            nn.Conv2d(12, 8, 3, 1, 1),
        )
        self.norm = nn.BatchNorm2d(8)
        self.fc = nn.Linear(8, CLASSES)

    def forward(self, x):
        x = functional.relu(self.conv1(x), inplace=self.inplace)
        x = torch.cat([x, functional.relu(self.conv2(x), inplace=self.inplace)], 1)
        return self.fc(functional.relu(self.norm(self.conv3(x)), inplace=self.inplace).mean((2, 3)))


class Returning(Cnn):
    def __init__(self, form):
        super().__init__()
        self.form = form

    def forward(self, x):
        features = self.features(x)
        logits = self.fc(self.pool(features).flatten(1))
        return {"tuple": (logits, features), "list": [logits], "dict": {"features": features, "logits": logits}}[
            self.form
        ]


class Counting(Cnn):
    """Writes to a buffer in every forward, also in evaluation mode; its output does not depend on it."""

    def __init__(self, how="in place"):
        super().__init__()
        self.how = how
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        if self.how == "in place":
            self.calls += 1
        elif self.how == "replaced":
            self.calls = self.calls + 1
        elif not hasattr(self, "made_late"):
            self.register_buffer("made_late", torch.ones(3))
        return super().forward(x)


class DropoutAlways(Cnn):
    """Draws random numbers in evaluation mode too (Monte Carlo dropout)."""

    def forward(self, x):
        return self.fc(functional.dropout(self.pool(self.features(x)).flatten(1), 0.3, training=True))


class Dropping(Cnn):
    """Dropout and BatchNorm that behave differently in training mode."""

    def __init__(self):
        super().__init__()
        self.drop = nn.Dropout(0.5)

    def forward(self, x):
        return self.fc(self.drop(self.pool(self.features(x)).flatten(1)))


class Detach(nn.Module):
    def forward(self, x):
        return x.detach()


class Cut(Cnn):
    """The graph is cut: in the submodule `cutter`, in the forward itself, or by an inference mode around everything."""

    def __init__(self, where="cutter"):
        super().__init__()
        self.where = where
        self.cutter = Detach()

    def forward(self, x):
        if self.where == "inference":
            with torch.inference_mode():
                return super().forward(x)
        features = self.features(x)
        features = self.cutter(features) if self.where == "cutter" else features.detach()
        return self.fc(self.pool(features).flatten(1))


class Checkpointed(Cnn):
    def __init__(self, on=True):
        super().__init__()
        self.on = on
        self.block = nn.Sequential(nn.Conv2d(12, 12, 3, 1, 1), nn.ReLU(), nn.Conv2d(12, 12, 3, 1, 1), nn.ReLU())

    def forward(self, x):
        x = self.features(x)
        x = checkpoint(self.block, x, use_reentrant=False) if self.on else self.block(x)
        return self.fc(self.pool(x).flatten(1))


class Failing(Cnn):
    """Raises in the forward where told to: after `after` calls."""

    def __init__(self, after=0):
        super().__init__()
        self.after, self.calls_made = after, 0

    def forward(self, x):
        self.calls_made += 1
        if self.calls_made > self.after:
            self.features(x)
            raise ZeroDivisionError("the network's own fault")
        return super().forward(x)


class SmallMemory(Cnn):
    """Out of memory above `rows` rows; its own bookkeeping says what it was asked."""

    def __init__(self, rows):
        super().__init__()
        self.rows, self.asked = rows, []

    def forward(self, x):
        self.asked.append(len(x))
        if len(x) > self.rows:
            raise torch.OutOfMemoryError("simulated")
        return super().forward(x)


class Linear(nn.Module):
    """logits = W x + b, so that every map is known in closed form."""

    def __init__(self, classes=CLASSES, pixels=3 * 32 * 32, flat=False):
        super().__init__()
        self.fc = nn.Linear(pixels, classes)
        self.flat = flat

    def forward(self, x):
        out = self.fc(x.flatten(1))
        return out[:, 0] if self.flat else out


class Volume(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv3d(1, 6, 3, 2, 1), nn.Conv3d(6, 8, 3, 1, 1)
        self.fc = nn.Linear(8, CLASSES)

    def forward(self, x):
        return self.fc(functional.relu(self.conv2(functional.relu(self.conv1(x)))).mean((2, 3, 4)))


class Signal(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv1d(2, 6, 5, 2, 2), nn.Conv1d(6, 8, 5, 1, 2)
        self.fc = nn.Linear(8, CLASSES)

    def forward(self, x):
        return self.fc(functional.relu(self.conv2(functional.relu(self.conv1(x)))).mean(2))


class WithUnused(Cnn):
    def __init__(self):
        super().__init__()
        self.spare = nn.Conv2d(3, 3, 1)


tiny_cnn = seeded(Cnn)
tiny_inplace = seeded(InPlace)
tiny_residual = seeded(Residual)
tiny_vit = seeded(Vit)
tiny_unet = seeded(UNet)
two_branches = seeded(TwoBranches)
two_outputs = seeded(TwoOutputs)
relu_thrice = seeded(ReluThrice)
channels_last = seeded(ChannelsLast)
dense_like = seeded(DenseLike)
returning = seeded(Returning)
counting = seeded(Counting)
dropout_always = seeded(DropoutAlways)
dropping = seeded(Dropping)
cut = seeded(Cut)
checkpointed = seeded(Checkpointed)
failing = seeded(Failing)
small_memory = seeded(SmallMemory)
linear = seeded(Linear)
volume = seeded(Volume)
signal = seeded(Signal)
with_unused = seeded(WithUnused)

NETS = {"cnn": tiny_cnn, "inplace": tiny_inplace, "residual": tiny_residual, "vit": tiny_vit}
