"""What the program contains: its crates, and the libraries that crates bundle."""

import gzip
import json
import re
import subprocess
import tempfile
import zlib
from pathlib import Path


def crates_of(program):
    """The crates that cargo-auditable has listed in the program, or None. Those of build scripts have the kind "build"."""
    with tempfile.NamedTemporaryFile() as section:
        command = ["objcopy", "--dump-section", f".dep-v0={section.name}", program, "/dev/null"]
        subprocess.run(command, capture_output=True, check=False)
        content = Path(section.name).read_bytes()
    return json.loads(zlib.decompress(content))["packages"] if content else None


def bundled(metadata, sources):
    """The libraries that are not crates, as components, each with the name of the crate that contains it.

    `metadata` is the output of cargo metadata. Scanners know no relation between such a crate and its library.
    """
    crates = {package["name"]: package for package in metadata["packages"]}
    header = Path(crates["libsqlite3-sys"]["manifest_path"]).with_name("sqlite3") / "sqlite3.h"
    sqlite = re.search(r'^#define SQLITE_VERSION +"(.*)"$', header.read_text(), re.MULTILINE)[1]
    openssl = crates["openssl-src"]["version"].split("+")[1]
    libpq = crates["pq-src"]["version"].split("+libpq-")[1]
    script = gzip.decompress((sources / "assets/swagger-ui/swagger-ui-bundle.js.gz").read_bytes()).decode()
    swagger_ui = re.search(r'PACKAGE_VERSION:"([\d.]+)"', script)[1]
    packages = json.loads((sources / "console/package-lock.json").read_text())["packages"]
    preact = packages["node_modules/preact"]["version"]
    return [
        ("libsqlite3-sys", component("sqlite", sqlite, "generic/sqlite", "sqlite:sqlite", "blessing")),
        ("openssl-src", component("openssl", openssl, "generic/openssl", "openssl:openssl", "Apache-2.0")),
        ("pq-src", component("libpq", libpq, "generic/postgresql", "postgresql:postgresql", "PostgreSQL")),
        ("latchkey", component("swagger-ui", swagger_ui, "npm/swagger-ui-dist", "smartbear:swagger_ui", "Apache-2.0")),
        ("latchkey", component("preact", preact, "npm/preact", "preactjs:preact", "MIT")),
    ]


def component(name, version, package, product, licence):
    """A component with the two names by which vulnerability databases list it."""
    purl = f"pkg:{package}@{version}"
    return {
        "type": "library", "bom-ref": purl, "name": name, "version": version, "scope": "required", "purl": purl,
        "cpe": f"cpe:2.3:a:{product}:{version}:*:*:*:*:*:*:*", "licenses": [{"license": {"id": licence}}],
    }


def add_bundled(bill, libraries):
    """Adds libraries to a bill of materials, as dependencies of the crates that contain them."""
    references = {one["name"]: one["bom-ref"] for one in [*bill["components"], bill["metadata"]["component"]]}
    depends_on = {one["ref"]: one.setdefault("dependsOn", []) for one in bill["dependencies"]}
    for crate, library in libraries:
        bill["components"].append(library)
        bill["dependencies"].append({"ref": library["bom-ref"]})
        depends_on[references[crate]].append(library["bom-ref"])
    return bill
