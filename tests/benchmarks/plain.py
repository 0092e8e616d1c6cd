"""The loop that a user would write: `python -m tests.benchmarks.plain LIST BUCKET PREFIX THREADS`.

httpx and boto3 in a pool of threads; it keeps no record, compares nothing, and forgets what it has done. The
list has a link on each line. It prints what it took as JSON, its own start not counted.
"""

import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, process_time
from typing import Any, Self

import boto3
import httpx
from botocore.config import Config

ENDPOINT = "S3_ENDPOINT"
"""The variable that says where the bucket is; the usual ones of AWS hold the keys to it."""


@dataclass(frozen=True, slots=True)
class Copier:
    """Copies from the web into a bucket. Threads may share it."""

    http: httpx.Client
    s3: Any
    bucket: str

    @classmethod
    def to(cls, bucket: str, variables: dict[str, str], *, threads: int = 1) -> Self:
        s3 = boto3.client(
            "s3",
            endpoint_url=variables[ENDPOINT],
            region_name=variables["AWS_DEFAULT_REGION"],
            aws_access_key_id=variables["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=variables["AWS_SECRET_ACCESS_KEY"],
            config=Config(max_pool_connections=threads),
        )
        return cls(httpx.Client(trust_env=False), s3, bucket)

    def copy(self, link: str, key: str) -> None:
        image = self.http.get(link).raise_for_status().content
        self.s3.put_object(Bucket=self.bucket, Key=key, Body=image, ContentType="image/png")


def main() -> None:
    links = Path(sys.argv[1]).read_text().split()
    bucket, prefix, threads = sys.argv[2], sys.argv[3], int(sys.argv[4])
    copier = Copier.to(bucket, dict(os.environ), threads=threads)
    with copier.http, ThreadPoolExecutor(threads) as pool:
        began, cpu = monotonic(), process_time()
        list(pool.map(copier.copy, links, (f"{prefix}/{n}.png" for n in range(len(links)))))
    print(json.dumps({"took_s": monotonic() - began, "cpu_s": process_time() - cpu}))


if __name__ == "__main__":
    main()
