"""Packaging: what a user installs, and nothing that only developers need."""

from pathlib import Path

from setuptools import find_packages, setup

FAST = ["isal>=1.7", "zlib-ng>=1.0"]
ZSTD = ["zstandard>=0.22"]
SQL = ["sqlalchemy>=2"]
POSTGRESQL = [*SQL, "psycopg[binary]>=3.1"]
# obstore keeps bytes in a folder, S3, GCS or Azure alike; multipart reads forms as they come, without I/O of its own.
FILES = [*SQL, "obstore>=0.9", "multipart>=2"]
SERVE = ["uvicorn>=0.30", "prometheus-client>=0.20", *FAST, *ZSTD, *FILES]
# Every server of docs/hosts.md. h2 is what hypercorn speaks HTTP/2 with; pyuwsgi is uWSGI without a compiler.
HOSTS = [
    *("gunicorn>=25.1", "gevent>=24.10", "waitress>=3", "pyuwsgi>=2.0.28", "cheroot>=10", "granian>=2"),
    *("uvicorn>=0.30", "httptools>=0.6", "hypercorn>=0.17", "h2>=4", "daphne>=4.1"),
]
# pyyaml reads the manifests of deploy/ to hold them against the command line they name.
TEST = ["pytest>=9", "hypothesis>=6.100", *HOSTS, "flask>=3", "fastapi>=0.110", "django>=5", "pyyaml>=6"]
# Clients and object stores that judge the file service. moto's own "server" would bring what all of AWS needs.
JUDGES = ["tuspy>=1.1", "moto[s3]>=5", "flask-cors>=4"]

setup(
    name="streamware",
    version="0.1.0",
    description="Many files as one streamed, measured, resumable ZIP or TAR download, in front of any WSGI or ASGI app",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author="streamware contributors",
    license="MIT",
    license_files=["LICENSE", "streamware/server/static/vendor/*.LICENSE"],
    python_requires=">=3.10",
    packages=find_packages(include=["streamware", "streamware.*"]),
    package_data={
        "streamware": ["py.typed"],
        "streamware.server": ["*.html", "*.css", "*.js", "static/*", "static/**/*"],
    },
    install_requires=["urllib3>=2.5", "falcon>=4.0", "asgiref>=3.8", "itsdangerous>=2.2"],
    extras_require={
        "fast": FAST,
        "zstd": ZSTD,
        "sql": SQL,
        "postgresql": POSTGRESQL,
        "files": FILES,
        "serve": SERVE,
        "hosts": HOSTS,
        "test": [*TEST, *JUDGES, *SERVE, *POSTGRESQL],
    },
    entry_points={"console_scripts": ["streamware = streamware.server.cli:main"]},
    zip_safe=False,
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Developers",
        "Operating System :: POSIX",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Internet :: WWW/HTTP :: WSGI :: Middleware",
        "Topic :: System :: Archiving",
        "Typing :: Typed",
    ],
)
