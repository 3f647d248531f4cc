# What DVC's stages ask for: artefacts alone, nothing published. Copies of them are made by `prefdist export`.
for _suite, _ablation in ABLATIONS:

    rule:
        name:
            f"ablation_{_suite}_{_ablation}"
        input:
            f"{ABLATIONS[_suite, _ablation].final.path}/provenance.json",
        localrule: True


for _suite, _plan in PLANS.items():

    rule:
        name:
            f"data_{_suite}"
        input:
            [f"{artefact.path}/provenance.json" for artefact in tables(_plan)],
        localrule: True
