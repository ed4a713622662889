"""`python -m infra.check`: checks the Terraform here, as far as this machine has the programs for it.

Format, validity, tests and lint. What cannot be checked is said in one line each. The google provider comes from
`terraform -chdir=infra init -backend=false`, from a CLI configuration in TF_CLI_CONFIG_FILE that names where it is, or
from the folder of test servers in TEST_SERVERS, which may hold tflint too.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
PROVIDER = "hashicorp/google"


def main() -> int:
    """Runs every check and returns 1 if one of them failed."""
    servers = os.environ.get("TEST_SERVERS", "")
    path = os.pathsep.join(part for part in (os.environ.get("PATH", ""), servers) if part)
    terraform, tflint = (shutil.which(name, path=path) for name in ("terraform", "tflint"))
    succeeded = []
    if terraform is None:
        left_out("format, validity and tests", "terraform is not installed")
    else:
        succeeded.append(passes("format", terraform, "fmt", "-check", "-diff", "-recursive"))
        configuration = cli_configuration(servers)
        if configuration or (HERE / ".terraform" / "providers").is_dir():
            succeeded.append(passes("validity", terraform, "validate", "-no-color", configuration=configuration))
            succeeded.append(passes("tests", terraform, "test", "-no-color", configuration=configuration))
        else:
            left_out("validity and tests", "terraform -chdir=infra init -backend=false gets the provider")
    if tflint is None:
        left_out("lint", "tflint is not installed")
    else:
        succeeded.append(passes("lint", tflint))
    return 0 if all(succeeded) else 1


def cli_configuration(servers: str) -> str:
    """The path of a CLI configuration that names the provider's place, or "" where there is none."""
    configuration = os.environ.get("TF_CLI_CONFIG_FILE", "")
    maker = Path(servers, "terraform-google", "config")
    if not Path(configuration).is_file() and servers and maker.is_file():
        configuration = subprocess.run([maker], check=True, capture_output=True, text=True).stdout.strip()
    if Path(configuration).is_file() and PROVIDER in Path(configuration).read_text():
        return configuration
    return ""


def passes(what: str, *command: str, configuration: str = "") -> bool:
    """Whether `command` succeeds. What it says is printed only when it does not."""
    environment = {name: value for name, value in os.environ.items() if name != "TF_CLI_CONFIG_FILE"}
    if configuration:
        environment["TF_CLI_CONFIG_FILE"] = configuration
    done = subprocess.run(
        command, check=False, cwd=HERE, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode:
        print(done.stdout, file=sys.stderr)
    print(f"Terraform, {what}: {'FAILED' if done.returncode else 'passed'}")
    return done.returncode == 0


def left_out(what: str, why: str) -> None:
    """Says what is not checked."""
    print(f"Terraform, {what}: NOT CHECKED, {why}")


if __name__ == "__main__":
    sys.exit(main())
