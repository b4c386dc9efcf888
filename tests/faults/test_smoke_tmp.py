from tests.faults.lab import Lab
def test_a(lab: Lab) -> None:
    assert lab.run("--iterations", "2").code == 0
    assert lab.outcomes() == ["success"] * 2
