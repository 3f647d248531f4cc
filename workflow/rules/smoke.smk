rule smoke:
    input:
        finals("smoke"),
    localrule: True


rule pad_smoke:
    input:
        finals("pad_smoke"),
    localrule: True
