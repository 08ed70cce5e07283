"""Lists a bucket with boto3's paginator: list_boto3.py <url> <bucket> <key id> <application key> <region>."""

import json
import sys

import boto3
from botocore.config import Config

url, bucket, key_id, application_key, region = sys.argv[1:]
client = boto3.client(
    "s3",
    endpoint_url=url,
    region_name=region,
    aws_access_key_id=key_id,
    aws_secret_access_key=application_key,
    config=Config(s3={"addressing_style": "path"}),
)
keys = 0
for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket):
    keys += len(page.get("Contents", []))
print(json.dumps({"keys": keys}))
