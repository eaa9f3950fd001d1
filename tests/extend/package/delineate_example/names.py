"""Names of channels and structures."""

from delineate import extend


@extend.terms("ward-7", definition="Protocols of the scanner in ward 7.")
def ward_7():
    return extend.Names(
        channels={"FLAIR": ["hirnserie dunkel"]}, structures={"urinary bladder": ["vesica"]}
    )
