"""Whether the container files and Kubernetes manifests hold together with the program's options.

There is no cluster and no registry here: this checks structure, and what one file promises another.
"""

import re

import yaml

REQUIRED = {
    "DaemonSet": ["spec.selector.matchLabels", "spec.template.spec.containers"],
    "ConfigMap": ["data"],
    "Service": ["spec.ports", "spec.selector"],
}


def at(tree, path):
    for key in path.split("."):
        tree = tree[key]
    return tree


def kubernetes():
    with open("config/kubernetes/corelay.yaml", encoding="utf-8") as file:
        documents = list(yaml.safe_load_all(file))
    kinds = {document["kind"]: document for document in documents}
    for kind, paths in REQUIRED.items():
        for path in paths:
            assert at(kinds[kind], path), f"{kind}: {path}"
    daemon = kinds["DaemonSet"]["spec"]
    pod = daemon["template"]["spec"]
    assert daemon["selector"]["matchLabels"].items() <= daemon["template"]["metadata"]["labels"].items()
    assert pod["hostNetwork"] is True
    [container] = pod["containers"]
    ports = {port["name"] for port in container["ports"]}
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert container[probe]["httpGet"]["port"] in ports, probe
    assert kinds["Service"]["spec"]["ports"][0]["targetPort"] in ports
    volumes = {volume["name"] for volume in pod["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
    options = yaml.safe_load(kinds["ConfigMap"]["data"]["webrtc.yaml"])
    pause = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pod["terminationGracePeriodSeconds"] > options["server"]["drain_timeout"] + pause
    known = shipped()
    for section, values in options.items():
        for key in values:
            assert f"{section}.{key}" in known, f"{section}.{key}"


def shipped():
    """All options there are."""
    known = set()
    for name in ("webrtc", "media"):
        with open(f"config/{name}.yaml", encoding="utf-8") as file:
            for section, values in yaml.safe_load(file).items():
                known |= {f"{section}.{key}" for key in values}
    return known


def compose():
    with open("config/container/docker-compose.yml", encoding="utf-8") as file:
        services = yaml.safe_load(file)["services"]
    assert {"corelay", "coturn", "redis"} <= services.keys()
    with open("config/webrtc.yaml", encoding="utf-8") as file:
        drain = yaml.safe_load(file)["server"]["drain_timeout"]
    assert int(services["corelay"]["stop_grace_period"].rstrip("s")) > drain


def dockerfile():
    with open("config/container/Dockerfile", encoding="utf-8") as file:
        text = file.read().replace("\\\n", " ")
    known = shipped()
    variables = {"CORELAY_CONFIG", "CORELAY_MEDIA"}
    variables |= {"CORELAY_" + path.replace(".", "_").upper() for path in known}
    for variable in re.findall(r"\b(CORELAY_[A-Z_]+)=", text):
        assert variable in variables, variable
    stages = re.findall(r"^FROM (\S+)", text, re.M)
    assert stages and all(":" in stage for stage in stages), "every base has a version"
    users = re.findall(r"^USER (\S+)", text, re.M)
    assert users and users[-1] != "root"
    for source in re.findall(r"^COPY (?!--from)(.*) \S+$", text, re.M):
        for path in source.split():
            open(path, encoding="utf-8").close() if path != "." else None


kubernetes()
compose()
dockerfile()
