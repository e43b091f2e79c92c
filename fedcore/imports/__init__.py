"""From a hospital's scans to de-identified BIDS in its bucket: ``fedcore site import``.

sources     folder, zip, DICOMDIR       dicomweb    a DICOMweb server
headers     one file's header           index       files → studies and series
visits      what a source offers        dicoms, niftis   the two kinds of it
rules       which series is which       geometry    do the slices make a volume
suv         PET: counts → SUV           convert     dcm2niix, and whether to believe it
masks       RTSTRUCT, SEG, NIfTI        deidentify, secret   PS3.15, pseudonyms, UIDs, dates
run, subject   one import, safe to kill   outcomes   one scan or mask → its files, or why not
records, writer, table   what is written, and where
reasons     why not, and the remedy     job         all of it: a source into a bucket
"""
