from fedcore.data import layout

PATTERNS = {"t1": "anat/*_T1w.nii.gz", "ct": "ct/*_ct.nii.gz"}


def test_files_are_found_in_the_order_of_the_plan() -> None:
    paths = ["anat/s_T1w.json", "anat/s_T1w.nii.gz", "ct/s_ct.nii.gz"]
    chosen, surplus = layout.choose(paths, PATTERNS)
    assert list(chosen.items()) == [("t1", "anat/s_T1w.nii.gz"), ("ct", "ct/s_ct.nii.gz")]
    assert surplus == []


def test_a_star_does_not_reach_over_a_slash() -> None:
    assert layout.choose(["anat/old/s_T1w.nii.gz"], PATTERNS) == ({}, [])


def test_the_first_run_counts() -> None:
    chosen, surplus = layout.choose(["ct/s_run-1_ct.nii.gz", "ct/s_run-2_ct.nii.gz"], PATTERNS)
    assert chosen == {"ct": "ct/s_run-1_ct.nii.gz"}
    assert surplus == [("ct/s_run-2_ct.nii.gz", "further file of the modality")]


def test_all_files_come_from_the_first_session_that_has_any() -> None:
    paths = [
        "ses-00/eeg/s_eeg.edf",
        "ses-01/ct/s_ct.nii.gz",
        "ses-02/anat/s_T1w.nii.gz",
        "ses-02/ct/s_ct.nii.gz",
    ]
    chosen, surplus = layout.choose(paths, PATTERNS)
    assert chosen == {"ct": "ses-01/ct/s_ct.nii.gz"}
    assert surplus == [
        ("ses-02/anat/s_T1w.nii.gz", "later session"),
        ("ses-02/ct/s_ct.nii.gz", "later session"),
    ]
