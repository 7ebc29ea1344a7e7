"""One file per row of the paper's tables (arXiv 2512.07829): what differs from `imagenet256_dinov2g`."""
