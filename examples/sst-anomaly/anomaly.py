#!/usr/bin/env python3
"""Subtracts the mean of its calendar month from one file of the pile.

    anomaly.py sst-YEAR-MONTH.nc CLIMATOLOGY_FOLDER OUTPUT.nc
"""

import os
import sys

import netCDF4


def main(source, climatology, output):
    month = os.path.basename(source).removesuffix(".nc")[-2:]
    with netCDF4.Dataset(os.path.join(climatology, f"{month}.nc")) as mean:
        usual = mean["surface_temperature"][:]
    with netCDF4.Dataset(source) as one, netCDF4.Dataset(output + ".part", "w") as new:
        new.title = "sea-surface temperature minus the mean of its calendar month"
        for name in ("time", "latitude", "longitude"):
            new.createDimension(name, len(one.dimensions[name]))
            variable = new.createVariable(name, one[name].dtype, (name,))
            variable.setncatts({a: one[name].getncattr(a) for a in one[name].ncattrs()})
            variable[:] = one[name][:]
        variable = new.createVariable(
            "anomaly", "f4", ("time", "latitude", "longitude"), fill_value=1e20
        )
        variable.units = "K"
        variable[:] = one["surface_temperature"][:] - usual
    # Only now under its name: no half file is ever seen.
    os.replace(output + ".part", output)


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
